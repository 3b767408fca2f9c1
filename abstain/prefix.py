"""Shared-prefix packing: many branches over one computed prefix, in one forward pass.

Rows that share a context differ only in their question and answer. Laid out row by row, a model
reads the context once for each of them; laid out as a tree it reads it once in all::

    prefix ──┬── question 1 ──┬── answer
             │                └── abstention phrase
             └── question 2 ───── answer

Each token sees its own segment up to itself and the segments above it, never a sibling, and its
position is its depth in the tree. With dropout off this is the row-by-row computation, to
numerical precision. (With dropout on, the prefix is sampled once for all its branches: another,
equally valid draw.) Kindred: tree attention in speculative decoding (SpecInfer, Miao et al. 2024).
"""

import logging
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from abstain import virtual

log = logging.getLogger(__name__)

ROOT = -1


class Tree:
    """A token sequence that holds a tree of segments, parents before children."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.segments: list[int] = []  # of each token, the segment that it belongs to
        self.parents: list[int] = []  # of each segment, the segment above it, or ROOT
        self._depths: list[int] = []  # of each segment, the position after its last token
        self._last: list[int] = []  # of each segment, the index of its last token

    def __len__(self) -> int:
        return len(self.tokens)

    def add(self, tokens: Sequence[int], parent: int = ROOT) -> int:
        """Hang a new segment below ``parent`` and return its number."""
        self.parents.append(parent)
        self._depths.append(self._depths[parent] if parent != ROOT else 0)
        self._last.append(self._last[parent] if parent != ROOT else -1)
        self.extend(len(self.parents) - 1, tokens)
        return len(self.parents) - 1

    def extend(self, segment: int, tokens: Sequence[int]) -> None:
        """Append tokens to a segment, e.g. one that the model has just generated."""
        start = self._depths[segment]
        self.positions.extend(range(start, start + len(tokens)))
        self.segments.extend([segment] * len(tokens))
        self.tokens.extend(tokens)
        self._depths[segment] += len(tokens)
        if tokens:
            self._last[segment] = len(self.tokens) - 1

    def last(self, segment: int) -> int:
        """Index of the segment's last token (its parent's, where it is empty)."""
        return self._last[segment]

    def indices(self, segment: int) -> list[int]:
        """Indices of the segment's own tokens, wherever they were appended."""
        return [index for index, owner in enumerate(self.segments) if owner == segment]

    def is_chain(self) -> bool:
        """Whether no two segments are siblings: then plain causal attention is the right one."""
        return self.parents == list(range(-1, len(self.parents) - 1)) and self.segments == sorted(
            self.segments
        )

    def visible(self, start: int = 0) -> Tensor:
        """Which tokens (columns, all) the tokens from ``start`` on (rows) see: bool [rows, all]."""
        count = len(self.parents)
        above = torch.eye(count, dtype=torch.bool)
        for segment, parent in enumerate(self.parents):
            if parent != ROOT:
                above[segment] |= above[parent]
        segments = torch.tensor(self.segments)
        order = torch.arange(len(self))
        return above[segments[start:]][:, segments] & (order[start:, None] >= order[None, :])


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Length of the longest common prefix, leaving each sequence at least one token of its own."""
    # The least and the greatest are the two that differ soonest.
    first, last = min(map(list, sequences)), max(map(list, sequences))
    limit = min(map(len, sequences)) - 1
    for index in range(limit):
        if first[index] != last[index]:
            return index
    return limit


def branch_out(prompts: Sequence[Sequence[int]]) -> tuple[Tree, list[int]]:
    """A tree with the prompts' common prefix as root; returns it and each prompt's segment."""
    tree = Tree()
    length = common_prefix(prompts)
    root = tree.add(prompts[0][:length])
    return tree, [tree.add(prompt[length:], root) for prompt in prompts]


@dataclass(frozen=True)
class Output:
    """What a forward pass gives at the tokens that were asked for."""

    logits: Tensor  # [asked, vocabulary], float32
    hidden: Tensor  # [asked, layers asked, hidden size], float32


def forward(
    model: Any,
    tree: Tree,
    at: Sequence[int],
    layers: Sequence[int] = (),
    cache: Any = None,
    embeddings: Tensor | None = None,
) -> Output:
    """Run the tokens that ``cache`` does not hold yet; logits and hidden states at ``at``.

    ``at`` are token indices into the tree, all of them at or behind the cached length. Logits are
    computed there only: a whole sequence of them is the largest tensor of a small model. Layer k
    is the output of the k-th block (0 is the embedding). ``embeddings`` [tokens, hidden] stand in
    for the tokens' own.
    """
    device = next(model.parameters()).device
    keep, before = cache is not None, virtual.count(model)
    if before:
        cache = virtual.begin(model, cache)
        model = model.get_base_model()
    start = 0 if cache is None else cache.get_seq_length() - before
    asked = torch.tensor([index - start for index in at], device=device)
    # A chain is what every causal model reads by default, so models that take neither masks nor
    # positions of ours can still read it.
    layout = {}
    if not tree.is_chain():
        positions = torch.tensor([tree.positions[start:]], device=device)
        layout["position_ids"] = positions + before
        visible = functional.pad(tree.visible(start), (before, 0), value=True)
        layout["attention_mask"] = _mask(model, visible, device)
    if embeddings is not None:
        read = {"inputs_embeds": embeddings[None]}
    else:
        read = {"input_ids": torch.tensor([tree.tokens[start:]], device=device)}
    output = model(
        past_key_values=cache,
        use_cache=keep or before > 0,
        logits_to_keep=asked,
        output_hidden_states=bool(layers),
        **read,
        **layout,
    )
    hidden = [output.hidden_states[layer][0, asked] for layer in layers]
    return Output(
        logits=output.logits[0].float(),
        hidden=torch.stack(hidden, 1).float() if hidden else asked.new_empty(len(at), 0, 0),
    )


def _mask(model: Any, visible: Tensor, device: torch.device) -> Tensor:
    """[1, 1, rows, columns] in the form that the model's attention takes."""
    visible = visible[None, None].to(device)
    if model.config._attn_implementation != "eager":
        return visible
    blocked = torch.finfo(model.dtype).min
    return torch.zeros(visible.shape, dtype=model.dtype, device=device).masked_fill(
        ~visible, blocked
    )


_supported: "weakref.WeakKeyDictionary[Any, bool]" = weakref.WeakKeyDictionary()


def supports_packing(model: Any) -> bool:
    """Whether packed and row-by-row logits agree on this model, tried once on its first use.

    Architectures with recurrent state, sliding windows or their own masks may not allow a custom
    mask; for them the callers pack one row a tree, which is the plain computation.
    """
    if model not in _supported:
        _supported[model] = not slides(model.config) and _agrees(model)
        if not _supported[model]:
            log.warning(
                "shared-prefix packing does not reproduce %s row by row; "
                "falling back to one row at a time (slower, same results)",
                type(model).__name__,
            )
    return _supported[model]


def slides(config: Any) -> bool:
    """Whether some layers see only the latest tokens: their cache forgets what a tree needs.

    A short trial cannot tell, since it would fit into the window.
    """
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return any(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    bound = getattr(config, "sliding_window", None)
    return bound is not None and bool(getattr(config, "use_sliding_window", True))


@torch.no_grad()
def _agrees(model: Any) -> bool:
    vocabulary = model.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocabulary, (4, 9), generator=generator).tolist()
    prompts = [tokens[0] + tokens[1], tokens[0] + tokens[2][:5], tokens[0] + tokens[3][:7]]
    was_training = model.training
    model.eval()
    try:
        tree, segments = branch_out(prompts)
        packed = forward(model, tree, [tree.last(s) for s in segments]).logits
        single = torch.cat([_single(model, prompt) for prompt in prompts])
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        log.warning("trying shared-prefix packing failed: %s", error)
        return False
    finally:
        model.train(was_training)
    return same_logits(model, packed, single)


def same_logits(model: Any, found: Tensor, reference: Tensor) -> bool:
    """Whether two ways of computing a model's logits agree, up to rounding.

    Half-precision weights round differently in another order of summation.
    """
    tolerance = 1e-3 if model.dtype == torch.float32 else 5e-2
    largest = reference.abs().max().clamp(min=1.0)
    return bool((found - reference).abs().max() <= tolerance * largest)


def _single(model: Any, prompt: Sequence[int]) -> Tensor:
    tree = Tree()
    tree.add(prompt)
    return forward(model, tree, [len(prompt) - 1]).logits


def own_lengths(keys: Sequence[str], lengths: Sequence[int]) -> list[int]:
    """What each prompt adds to the shortest of its key: nearly its tokens behind the prefix.

    The common prefix itself is known only once the packs are, and packs need no more than this.
    """
    shortest: dict[str, int] = {}
    for key, length in zip(keys, lengths, strict=True):
        shortest[key] = min(shortest.get(key, length), length)
    return [length - shortest[key] for key, length in zip(keys, lengths, strict=True)]


def group_by_prefix(
    keys: Sequence[str], lengths: Sequence[int], max_rows: int, max_tokens: int
) -> list[list[int]]:
    """Put rows of equal ``keys`` (their contexts) into packs, in order of first appearance.

    ``lengths`` are the rows' own tokens, without the shared prefix: what a row adds to its pack.
    A pack holds at most ``max_rows`` rows and, where it holds more than one, ``max_tokens``.
    """
    groups: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(key, []).append(index)
    return [
        pack for members in groups.values() for pack in _cut(members, lengths, max_rows, max_tokens)
    ]


def _cut(
    members: Iterable[int], lengths: Sequence[int], max_rows: int, max_tokens: int
) -> list[list[int]]:
    packs: list[list[int]] = []
    used = 0
    for index in members:
        if not packs or len(packs[-1]) == max_rows or used + lengths[index] > max_tokens:
            packs.append([])
            used = 0
        packs[-1].append(index)
        used += lengths[index]
    return packs
