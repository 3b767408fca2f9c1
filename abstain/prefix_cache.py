"""Computed contexts, kept for the next question about them: the least recently used go first."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prefix:
    """What a model has computed of the tokens that prompts on one context begin with."""

    tokens: tuple[int, ...]
    layers: list[tuple[Tensor, Tensor]]  # keys and values of each, [1, heads, tokens, size]
    entering: dict[int, Tensor]  # [tokens, hidden] as they enter some blocks, by their numbers

    def cache(self, config: Any) -> Any:
        """A new cache that begins with it; the tensors are shared, and never written into."""
        from transformers import DynamicCache

        cache = DynamicCache(config=config)
        for number, (keys, values) in enumerate(self.layers):
            cache.update(keys, values, number)
        return cache

    @property
    def size(self) -> int:
        """Bytes."""
        tensors = [tensor for pair in self.layers for tensor in pair]
        tensors += self.entering.values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def take(tokens: Sequence[int], cache: Any, entering: dict[int, Tensor]) -> Prefix:
    """The first tokens of what a pack has computed, copied so that the rest can be freed."""
    count = len(tokens)
    return Prefix(
        tuple(tokens),
        [
            (layer.keys[:, :, :count].clone(), layer.values[:, :, :count].clone())
            for layer in cache.layers
        ],
        {number: states[:count].clone() for number, states in entering.items()},
    )


class PrefixCache:
    """Prefixes by their tokens, up to so many bytes. Not for several threads at once."""

    def __init__(self, limit: int) -> None:
        """``limit`` in bytes."""
        self.limit = limit
        self.hits = self.misses = 0
        self._kept: OrderedDict[tuple[int, ...], Prefix] = OrderedDict()
        self._size = 0

    @torch.inference_mode()
    def get(self, tokens: Sequence[int], recorded: Sequence[int]) -> Prefix | None:
        """The prefix of these tokens, if it has been kept with the recorded blocks' states."""
        found = self._kept.get(tuple(tokens))
        if found is None or not set(recorded) <= found.entering.keys():
            self.misses += 1
            return None
        self.hits += 1
        self._kept.move_to_end(found.tokens)
        return found

    def put(self, prefix: Prefix) -> None:
        """Keep one; what has been used longest ago makes room for it."""
        old = self._kept.pop(prefix.tokens, None)
        self._size += prefix.size - (old.size if old is not None else 0)
        self._kept[prefix.tokens] = prefix
        while self._size > self.limit and self._kept:
            _, gone = self._kept.popitem(last=False)
            self._size -= gone.size
