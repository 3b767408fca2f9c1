"""Computed contexts, kept for the next question about them: the least recently used go first."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from abstain import virtual


@dataclass(frozen=True)
class Prefix:
    """What a model has computed of the tokens that prompts on one context begin with."""

    tokens: tuple[int, ...]
    layers: list[tuple[Tensor, Tensor]]  # keys and values of each, [1, heads, tokens, size]
    entering: dict[int, Tensor]  # [tokens, hidden] as they enter some blocks, by their numbers

    @property
    def size(self) -> int:
        """Bytes."""
        tensors = [tensor for pair in self.layers for tensor in pair]
        tensors += self.entering.values()
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def join(model: Any, prefixes: Sequence[Prefix]) -> Any:
    """A cache that holds some prefixes, one behind the other; theirs are never written into."""
    from transformers import DynamicCache

    if virtual.count(model):
        cache = virtual.begin(model, None)
    else:
        cache = DynamicCache(config=model.config)
    for number, layers in enumerate(zip(*(prefix.layers for prefix in prefixes), strict=True)):
        keys, values = (torch.cat(parts, 2) for parts in zip(*layers, strict=True))
        cache.update(keys, values, number)
    return cache


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
