"""The probe: answerability read off hidden states by a linear map fitted after training.

Answerability is linearly decodable from a model's middle layers even where its output does not show
it (Slobodkin et al. 2023, "The Curious Case of Hallucinatory (Un)answerability"). The probe has the
form of the sufficiency head: a read-out for each of a few layers, their logits averaged. Layers,
and how strongly each read-out is penalised, are chosen by cross-validation that keeps questions on
one context together.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from abstain.calibrator import sigmoid
from abstain.folds import group_folds
from abstain.head import SufficiencyHead, load_head, scaled
from abstain.signals import Array

FILE = "probe.safetensors"
MOST_LAYERS = 6
PENALTIES = (3e-5, 3e-4, 3e-3, 3e-2, 3e-1)  # scikit-learn's C


@dataclass(frozen=True)
class ProbeFit:
    """A fitted probe, and what cross-validation saw of it."""

    probe: SufficiencyHead
    logits: Array  # [rows], each from a fit without the row's group
    layers: tuple[int, ...]
    log_loss: float  # cross-validated
    auroc: float  # cross-validated

    def to_json(self) -> dict[str, Any]:
        """For the calibration's details."""
        return {name: asdict(self)[name] for name in ("layers", "log_loss", "auroc")}


def fit(hidden: NDArray[np.float32], labels: NDArray[np.bool_], groups: Sequence[str]) -> ProbeFit:
    """Fit on the hidden states [rows, layers + 1, hidden] of the prompts' last tokens.

    Each layer is rated by its cross-validated log-loss, and averaging the best m of them is tried
    for m = 1 … `MOST_LAYERS`.
    """
    from sklearn.metrics import log_loss, roc_auc_score

    folds = group_folds(groups)
    layers = candidate_layers(hidden.shape[1] - 1)
    tried = []
    for layer in tqdm(layers, desc="fit the probe", unit="layer", leave=False):
        x = _features(hidden[:, layer])
        fits = [(cross_fit(x, labels, folds, c), c) for c in PENALTIES]
        losses = [float(log_loss(labels, sigmoid(logits))) for logits, _ in fits]
        best = int(np.argmin(losses))
        tried.append((losses[best], layer, *fits[best]))
    tried.sort(key=lambda entry: entry[:2])
    averages = [
        np.mean([entry[2] for entry in tried[:count]], 0)
        for count in range(1, min(MOST_LAYERS, len(tried)) + 1)
    ]
    losses = [float(log_loss(labels, sigmoid(logits))) for logits in averages]
    count = int(np.argmin(losses)) + 1
    chosen = sorted(tried[:count], key=lambda entry: entry[1])
    head = SufficiencyHead([layer for _, layer, *_ in chosen], hidden.shape[2])
    for number, (_, layer, _, c) in enumerate(chosen):
        weight, bias = _linear(_features(hidden[:, layer]), labels, c)
        with torch.no_grad():
            head.weight[number] = torch.from_numpy(weight)
            head.bias[number] = bias
    logits = averages[count - 1]
    auroc = float(roc_auc_score(labels, logits))
    return ProbeFit(head.eval(), logits, head.layers, losses[count - 1], auroc)


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


def _features(states: NDArray[np.float32]) -> Array:
    return scaled(torch.from_numpy(states)).double().numpy()


def load_probe(run: Path) -> SufficiencyHead | None:
    """The probe stored in a run's folder, or None where `abstain calibrate` has fitted none."""
    return load_head(run, FILE)
