"""Dropout masks for sampling: drawn by name, laid over the tokens of many samples at once.

A mask is a function of (seed, answer, sample) and of its place in the network, and of nothing else:
whatever else is in the batch, sample 3 of an answer goes through the same thinned network. Places
are drawn from the top of the network down, so that a scope of fewer blocks draws the same masks for
the blocks that it has.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from abstain.draws import generator
from abstain.evidence import MaskKind
from curate.errors import UserError


@dataclass(frozen=True)
class Draw:
    """One dropout sample of one answer, and how many tokens of the batch belong to it."""

    answer: str  # what names the answer, e.g. a hash of its question and context
    sample: int
    tokens: int


class _Place(nn.Module):
    """Stands where an adapter has its dropout while samples are drawn."""

    def __init__(self, features: int, p: float) -> None:
        super().__init__()
        self.features = features
        self.p = p
        self.masks: Tensor | None = None  # [draws or tokens, features]
        self.rows: Tensor | None = None  # of each token, its row in ``masks``; None: one each

    def forward(self, inputs: Tensor) -> Tensor:
        """``inputs`` [1, tokens, features]; all of them pass where no masks are laid."""
        if self.masks is None:
            return inputs
        masks = self.masks if self.rows is None else self.masks[self.rows]
        return inputs * masks


class Masks:
    """The places of a model's dropout, highest first, and the masks that lie on them."""

    def __init__(self, places: list[_Place], seed: int, kind: MaskKind, device: Any) -> None:
        self._places = places
        self._seed = seed
        self._kind = kind
        self._device = device

    @contextmanager
    def laid(self, draws: Sequence[Draw]) -> Iterator[None]:
        """Lay the masks of some draws, whose tokens stand one draw behind the other."""
        drawn = [self._draw(draw) for draw in draws]
        rows = None
        if self._kind == "shared":
            counts = torch.tensor([draw.tokens for draw in draws])
            rows = torch.arange(len(draws)).repeat_interleave(counts).to(self._device)
        try:
            for number, place in enumerate(self._places):
                masks = np.concatenate([masks[number] for masks in drawn])
                place.masks = torch.from_numpy(masks).to(self._device)
                place.rows = rows
            yield
        finally:
            for place in self._places:
                place.masks = place.rows = None

    def _draw(self, draw: Draw) -> list[Any]:
        random = generator(f"{self._seed}/{draw.answer}/{draw.sample}")
        masks = []
        for place in self._places:
            shape = (1 if self._kind == "shared" else draw.tokens, place.features)
            kept = random.random(shape, dtype=np.float32) >= place.p
            masks.append(kept.astype(np.float32) / np.float32(1 - place.p))
        return masks


@contextmanager
def sampled_dropout(
    model: Any, seed: int, kind: MaskKind = "shared", without: Sequence[Any] = ()
) -> Iterator[Masks]:
    """Take over the dropout of a model's adapters; afterwards all is as it was.

    Nothing is dropped in the modules ``without``. Raises `UserError` where there is no dropout.
    """
    left_out = {module for part in without for module in part.modules()}
    taken, thinned, places = [], [], []
    try:
        for layer, holder, name, p in dropouts(model):
            place = _Place(layer.in_features, p)
            taken.append((holder, name, holder[name]))
            holder[name] = place
            if getattr(layer, "use_dora", {}).get(name):  # asks for its dropout in training only
                thinned.append((layer, layer.training))
                layer.training = True
            if layer not in left_out:
                places.append(place)
        yield Masks(places, seed, kind, next(model.parameters()).device)
    finally:
        for holder, name, before in taken:
            holder[name] = before
        for layer, mode in thinned:
            layer.training = mode


def dropouts(model: Any) -> list[tuple[Any, Any, str, float]]:
    """Each dropout in use, the highest first: its layer, what holds it under a name, p.

    LoRA's layers have one each, and so have bottleneck adapters. Raises `UserError` where the model
    has none, or none that would drop anything.
    """
    layers = [m for m in model.modules() if hasattr(m, "lora_dropout")]
    layers += [m for m in model.modules() if hasattr(m, "adapter_dropout")]
    if not layers:
        raise UserError(
            "MC dropout needs a run with an adapter that has dropout (--method lora, rslora, dora, "
            "adalora or bottleneck), and this model has none; one that was merged into its base is "
            "gone: give the folder that `train run` wrote"
        )
    if any(getattr(layer, "merged", False) for layer in layers):
        raise UserError("MC dropout needs the adapter unmerged: merging leaves its dropout behind")
    found = []
    for layer in reversed(layers):
        holder = layer.lora_dropout if hasattr(layer, "lora_dropout") else layer.adapter_dropout
        found += [
            (layer, holder, name, float(getattr(dropout, "p", 0.0)))
            for name, dropout in holder.items()
            if name in getattr(layer, "active_adapters", holder)
        ]
    if not any(p > 0 for *_, p in found):
        raise UserError(
            "MC dropout needs an adapter that was trained with dropout, and this one was trained "
            "without: train with `dropout` above 0 in --config (0.1 is the default)"
        )
    return found
