"""A Laplace approximation over the adapter's weights in the highest blocks: the other Bayesian way.

Around the trained weights θ the posterior is taken for a normal distribution with a diagonal
precision: the generalised Gauss–Newton matrix of "abstain or not" on training rows, plus a prior
precision τ (Daxberger et al. 2021, "Laplace Redux"; for LoRA, Yang et al. 2024, "Bayesian Low-rank
Adaptation"). With f the log-odds against the abstention phrase and g its gradient, f is linear in
θ, so that an answer costs one small backward pass: its variance is v = Σ gᵢ² / Λᵢ, and its odds
shrink to f / √(1 + π v / 8) (MacKay 1992). As for MC dropout's ``top-k``, the prompt before its
last token is taken as read.

`laplace-torch` keeps a model's outputs for a batch of inputs; it has no place for answers that
share a computed prefix, which is what makes this cheap.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from abstain.blocks import can_skip, cut_cache, decoder, only_from
from abstain.calibrator import Labels, fit
from abstain.mc_dropout import Item, Trace, hang
from abstain.prefix import Tree, forward, supports_packing
from abstain.selection import log_loss
from abstain.signals import Array, log_odds
from curate.errors import UserError
from curate.files import replacing

FILE = "laplace.safetensors"
BLOCKS = 2
# Prior precisions that are tried on validation.
PRECISIONS = tuple(10.0**power for power in range(-2, 7))


@dataclass(frozen=True)
class LaplaceScore:
    """The log-odds against the abstention phrase, and their variance over the posterior."""

    log_odds: float
    variance: float

    @property
    def shrunk(self) -> float:
        """The log-odds of the expected probability, nearly: f / √(1 + π v / 8)."""
        return self.log_odds / math.sqrt(1 + math.pi * self.variance / 8)


class Gradients:
    """Gradients of f over the LoRA weights of a model's highest blocks."""

    def __init__(self, model: Any, phrase: Sequence[int], blocks: int) -> None:
        """Raises `UserError` where the highest blocks cannot be run alone, or hold no adapter."""
        self.model = model
        self.phrase = list(phrase)
        self.blocks = blocks
        layers = decoder(model).layers
        if not 1 <= blocks <= len(layers):
            raise UserError(f"a Laplace approximation of {blocks} blocks: give 1 to {len(layers)}")
        self.lowest = len(layers) - blocks
        self.parameters = {
            f"{number}.{name}": parameter
            for number, block in enumerate(layers[self.lowest :], self.lowest)
            for name, parameter in block.named_parameters()
            if "lora_" in name
        }
        if not self.parameters:
            raise UserError("a Laplace approximation needs a run with a LoRA adapter")
        if not supports_packing(model) or (self.lowest and not can_skip(model, self.lowest)):
            raise UserError("a Laplace approximation needs a model whose highest blocks run alone")

    def of(self, item: Item, trace: Trace) -> tuple[float, list[Tensor]]:
        """f and its gradient, a tensor for each parameter."""
        with torch.inference_mode(False), torch.enable_grad():
            parameters = list(self.parameters.values())
            frozen = [parameter.requires_grad for parameter in parameters]
            try:
                for parameter in parameters:
                    parameter.requires_grad_(True)
                score = self._log_p_abstain(item, trace)
                # d log(p / (1 − p)) = d log p / (1 − p)
                slope = -1 / -math.expm1(min(score.item(), -1e-7))
                gradients = torch.autograd.grad(score * slope, parameters)
            finally:
                for parameter, before in zip(parameters, frozen, strict=True):
                    parameter.requires_grad_(before)
        return -log_odds(score.item()), list(gradients)

    def _log_p_abstain(self, item: Item, trace: Trace) -> Tensor:
        tree = Tree()
        read = item.prompt_at[:-1]
        question = tree.add(item.prompt[-1:], tree.add(item.prompt[:-1]))
        [at] = hang(tree, question, [self.phrase])
        entering = trace.entering[self.lowest]
        source = torch.tensor([item.prompt_at[-1], *item.phrase_at], device=entering.device)
        # What was computed in inference mode may not be kept for a backward pass, copies may.
        states = entering[source].clone()
        cache = cut_cache(self.model, trace.cache, read, self.lowest)
        with only_from(self.model, self.lowest):
            output = forward(self.model, tree, at, cache=cache, embeddings=states)
        log_p = output.logits.log_softmax(-1)
        return log_p.gather(-1, torch.tensor(self.phrase, device=log_p.device)[:, None]).sum()


@dataclass(frozen=True)
class Laplace:
    """A fitted approximation: diagonal curvature, and the prior's precision."""

    gradients: Gradients
    curvature: list[Tensor]  # of each parameter, summed over the training rows
    precision: float  # τ

    def score(self, item: Item, trace: Trace) -> LaplaceScore:
        """f and its variance for one answer."""
        value, gradient = self.gradients.of(item, trace)
        return LaplaceScore(value, _variances(gradient, self.curvature, [self.precision])[0])

    def save(self, run: Path) -> None:
        """Write it beside the adapter."""
        names = self.gradients.parameters
        tensors = dict(zip(names, (c.cpu().contiguous() for c in self.curvature), strict=True))
        metadata = {"blocks": str(self.gradients.blocks), "precision": repr(self.precision)}
        with replacing(run / FILE) as temporary:
            temporary.write_bytes(save(tensors, metadata))


def _variances(
    gradient: Sequence[Tensor], curvature: Sequence[Tensor], precisions: Sequence[float]
) -> list[float]:
    """Σ gᵢ² / (curvatureᵢ + τ) for each τ."""
    return [
        sum(
            float((g.double().square() / (c.double() + precision)).sum())
            for g, c in zip(gradient, curvature, strict=True)
        )
        for precision in precisions
    ]


def fit_laplace(
    gradients: Gradients,
    train: Iterable[tuple[Item, Trace]],
    train_rows: int,
    validation: Iterable[tuple[Item, Trace]],
    labels: Labels,
) -> Laplace:
    """Curvature from some training answers, scaled up to ``train_rows``; τ from validation.

    τ is the one whose shrunk log-odds tell sufficient from insufficient with the least log-loss.
    """
    curvature = [torch.zeros_like(p) for p in gradients.parameters.values()]
    count = 0
    for item, trace in train:
        value, gradient = gradients.of(item, trace)
        weight = 0.25 / math.cosh(value / 2) ** 2 if abs(value) < 60 else 0.0  # σ(f) (1 − σ(f))
        for total, g in zip(curvature, gradient, strict=True):
            total.add_(g.square(), alpha=weight)
        count += 1
    curvature = [total * (train_rows / max(1, count)) for total in curvature]
    values, variances = [], []
    for item, trace in validation:
        value, gradient = gradients.of(item, trace)
        values.append(value)
        variances.append(_variances(gradient, curvature, PRECISIONS))
    losses = [
        _loss(np.array(values), np.array(column), labels) for column in zip(*variances, strict=True)
    ]
    return Laplace(gradients, curvature, PRECISIONS[int(np.argmin(losses))])


def _loss(value: Array, variance: Array, labels: Labels) -> float:
    shrunk = (value / np.sqrt(1 + np.pi * variance / 8))[:, None]
    return log_loss(fit("platt", shrunk, labels, ("laplace",)).probability(shrunk), labels)


def load_laplace(run: Path, model: Any, phrase: Sequence[int]) -> Laplace | None:
    """What `abstain calibrate` has stored in a run's folder, or None where there is none."""
    path = run / FILE
    if not path.exists():
        return None
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if {"blocks", "precision"} - set(metadata):
            raise UserError(f"{path}: damaged; calibrate the run again")
        gradients = Gradients(model, phrase, int(metadata["blocks"]))
        if set(gradients.parameters) != set(file.keys()):
            raise UserError(f"{path}: belongs to another adapter; calibrate the run again")
        device = next(model.parameters()).device
        curvature = [file.get_tensor(name).to(device) for name in gradients.parameters]
    return Laplace(gradients, curvature, float(metadata["precision"]))
