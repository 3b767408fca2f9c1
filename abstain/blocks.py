"""Running only the highest blocks of a model, on what was once computed below them."""

import logging
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from abstain import virtual
from abstain.prefix import Tree, forward, same_logits
from curate.errors import UserError

log = logging.getLogger(__name__)


def decoder(model: Any) -> Any:
    """The module that holds a causal model's blocks in ``layers``."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner = base.get_decoder() if hasattr(base, "get_decoder") else None
    if not isinstance(getattr(inner, "layers", None), nn.ModuleList):
        raise UserError(
            f"{type(base).__name__} does not keep its blocks in `layers`, which this needs: for MC "
            "dropout use --mc-scope suffix, for training another --method"
        )
    return inner


@contextmanager
def entering(block: Any) -> Iterator[list[Tensor]]:
    """Collect what enters a block: [tokens, hidden] of each forward pass made meanwhile."""
    found: list[Tensor] = []

    def keep(_: Any, args: Any, kwargs: Any) -> None:
        found.append((args[0] if args else kwargs["hidden_states"])[0])

    handle = block.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()


@contextmanager
def only_from(model: Any, lowest: int) -> Iterator[None]:
    """Leave out the blocks below ``lowest``; the others keep their places in the cache.

    Hidden states are counted from ``lowest`` on. They must have been asked for once before:
    `transformers` hooks the blocks that it finds on the first time.
    """
    inner = decoder(model)
    whole = inner.layers
    inner.layers = nn.ModuleList(list(whole)[lowest:])
    try:
        yield
    finally:
        inner.layers = whole


def cut_cache(model: Any, cache: Any, at: Sequence[int], lowest: int = 0) -> Any:
    """A new cache with the keys and values of some tokens, for the blocks from ``lowest`` on."""
    from transformers import DynamicCache

    result = DynamicCache(config=model.config)
    before = virtual.count(model)
    places = [*range(before), *(before + token for token in at)]
    index = torch.tensor(places, device=cache.layers[0].keys.device)
    for number, layer in enumerate(cache.layers):
        if number == 0 or number >= lowest:  # the first one tells how long the cache is
            keys, values = layer.keys.index_select(2, index), layer.values.index_select(2, index)
            result.update(keys, values, number)
    return result


_skippable: "weakref.WeakKeyDictionary[Any, dict[int, bool]]" = weakref.WeakKeyDictionary()


def can_skip(model: Any, lowest: int) -> bool:
    """Whether this model's blocks from ``lowest`` on, run alone, give the whole model's logits.

    Tried once on first use: an architecture may do more between its blocks than hand on a state.
    """
    known = _skippable.setdefault(model, {})
    if lowest not in known:
        known[lowest] = _agrees(model, lowest)
        if not known[lowest]:
            log.warning(
                "the highest blocks of %s cannot be run alone; top-k sampling runs all of them "
                "(slower, same results)",
                type(model).__name__,
            )
    return known[lowest]


@torch.inference_mode()
def _agrees(model: Any, lowest: int) -> bool:
    from transformers import DynamicCache

    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (12,), generator=generator).tolist()
    tree = Tree()
    root = tree.add(tokens[:5])
    cache = DynamicCache(config=model.config)
    # Hidden states are asked for so that every block is hooked before some are left out.
    forward(model, tree, [4], (1,), cache)
    tree.add(tokens[5:8], root)
    tree.add(tokens[8:], root)
    at = [7, 11]
    with entering(decoder(model).layers[lowest]) as states:
        whole = forward(model, tree, at, cache=cut_cache(model, cache, range(5))).logits
    try:
        with only_from(model, lowest):
            part = cut_cache(model, cache, range(5), lowest)
            alone = forward(model, tree, at, cache=part, embeddings=states[0]).logits
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        log.warning("running the highest blocks alone failed: %s", error)
        return False
    return same_logits(model, alone, whole)
