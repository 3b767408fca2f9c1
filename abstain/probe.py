"""The probe: answerability read off hidden states by a linear map fitted after training.

Answerability is linearly decodable from a model's middle layers even where its output does not show
it (Slobodkin et al. 2023, "The Curious Case of Hallucinatory (Un)answerability"). The probe has the
form of the sufficiency head: a read-out for each of a few layers, their logits averaged. Layers,
and how strongly each read-out is penalised, are chosen by cross-validation that keeps questions on
one context together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from abstain.calibrator import sigmoid
from abstain.folds import group_folds
from abstain.head import SufficiencyHead, load_head, scaled
from abstain.selection import log_loss
from abstain.signals import Array

FILE = "probe.safetensors"
MOST_LAYERS = 6
PENALTIES = (3e-5, 3e-4, 3e-3, 3e-2, 3e-1)  # scikit-learn's C


@dataclass(frozen=True)
class ProbeFit:
    """A fitted probe, and what cross-validation saw of it."""

    probe: SufficiencyHead
    logits: Array  # [rows], each from a fit without the row's group
    folds: list[tuple[SufficiencyHead, list[int]]]  # each such fit, and the rows that it left out
    log_loss: float  # cross-validated
    auroc: float  # cross-validated

    def to_json(self) -> dict[str, Any]:
        """For the calibration's details."""
        return {
            "layers": list(self.probe.layers),
            "log_loss": self.log_loss,
            "auroc": self.auroc,
        }


@dataclass(frozen=True)
class _Layer:
    """One layer's best penalty, and the logits of the fits that left a row's group out."""

    loss: float
    layer: int
    penalty: float
    logits: Array


def fit(hidden: NDArray[np.float32], labels: NDArray[np.bool_], groups: Sequence[str]) -> ProbeFit:
    """Fit on the hidden states [rows, layers + 1, hidden] of the prompts' last tokens.

    Each layer is rated by its cross-validated log-loss, and averaging the best m of them is tried
    for m = 1 … `MOST_LAYERS`.
    """
    from sklearn.metrics import roc_auc_score

    folds = group_folds(groups)
    layers = candidate_layers(hidden.shape[1] - 1)
    bar = tqdm(layers, desc="fit the probe", unit="layer", leave=False)
    rated = sorted((_rate(hidden, layer, labels, folds) for layer in bar), key=lambda r: r.loss)
    averages = [
        np.mean([one.logits for one in rated[:count]], 0)
        for count in range(1, min(MOST_LAYERS, len(rated)) + 1)
    ]
    losses = [log_loss(sigmoid(logits), labels) for logits in averages]
    count = int(np.argmin(losses)) + 1
    chosen = sorted(rated[:count], key=lambda one: one.layer)
    everything = np.arange(len(labels))
    return ProbeFit(
        _head(hidden, labels, everything, chosen),
        averages[count - 1],
        [(_head(hidden, labels, train, chosen), test.tolist()) for train, test in folds],
        losses[count - 1],
        float(roc_auc_score(labels, averages[count - 1])),
    )


def _rate(
    hidden: NDArray[np.float32],
    layer: int,
    labels: NDArray[np.bool_],
    folds: Sequence[tuple[Any, Any]],
) -> _Layer:
    x = features(hidden[:, layer])
    fits = [cross_fit(x, labels, folds, c) for c in PENALTIES]
    losses = [log_loss(sigmoid(logits), labels) for logits in fits]
    best = int(np.argmin(losses))
    return _Layer(losses[best], layer, PENALTIES[best], fits[best])


def _head(
    hidden: NDArray[np.float32], labels: NDArray[np.bool_], rows: Any, chosen: Sequence[_Layer]
) -> SufficiencyHead:
    """The chosen layers' read-outs, fitted on some rows."""
    head = SufficiencyHead([one.layer for one in chosen], hidden.shape[2])
    with torch.no_grad():
        for number, one in enumerate(chosen):
            x = features(hidden[rows, one.layer])
            weight, bias = _linear(x, labels[rows], one.penalty)
            head.weight[number] = torch.from_numpy(weight)
            head.bias[number] = bias
    return head.eval()


def candidate_layers(count: int) -> list[int]:
    """The layers that are tried, of a model with so many: every second of the upper two thirds."""
    return list(range(count, count // 3, -2))


def cross_fit(
    x: Array, labels: NDArray[np.bool_], folds: Sequence[tuple[Any, Any]], c: float
) -> Array:
    """Each row's logit from the fit on the folds that it is not in."""
    result = np.zeros(len(x))
    for train, test in folds:
        weight, bias = _linear(x[train], labels[train], c)
        result[test] = x[test] @ weight + bias
    return result


def _linear(x: Array, labels: NDArray[np.bool_], c: float) -> tuple[Array, float]:
    """Weights and bias of a penalised logistic regression on standardised features, as for raw."""
    from sklearn.linear_model import LogisticRegression

    if labels.all() or not labels.any():
        rate = (labels.sum() + 1) / (len(labels) + 2)
        return np.zeros(x.shape[1]), float(np.log(rate / (1 - rate)))
    mean, scale = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=c, max_iter=500).fit((x - mean) / scale, labels)
    weight = model.coef_[0] / scale
    return weight, float(model.intercept_[0] - weight @ mean)


def features(states: NDArray[np.float32]) -> Array:
    """Hidden states [rows, hidden] as a head reads them."""
    return scaled(torch.from_numpy(states)).double().numpy()


def load_probe(run: Path) -> SufficiencyHead | None:
    """The probe stored in a run's folder, or None where `abstain calibrate` has fitted none."""
    return load_head(run, FILE)
