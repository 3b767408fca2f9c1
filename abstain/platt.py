"""Calibration: from signals to a probability, by logistic regression on the validation split.

Platt's method (1999) for several signals: an unpenalised fit (a penalty would shrink the slope
and make the probabilities timid), kept finite on separable data by his smoothed targets
(N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from abstain.signals import Array


@dataclass(frozen=True)
class Calibrator:
    """P(y = 1) = σ(bias + Σ weight · (signal − mean) / scale); numbers, no pickle."""

    signals: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float

    def probability(self, values: Array) -> Array:
        """[rows, signals] to [rows]."""
        standard = (values - np.array(self.mean)) / np.array(self.scale)
        odds = self.bias + standard @ np.array(self.weight)
        return np.asarray(0.5 * (1 + np.tanh(odds / 2)))  # σ without overflow

    def to_json(self) -> dict[str, Any]:
        """The numbers, as they are stored with a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibrator":
        """What `to_json` stored."""
        return cls(
            tuple(value["signals"]),
            tuple(value["mean"]),
            tuple(value["scale"]),
            tuple(value["weight"]),
            value["bias"],
        )


def fit(values: Array, labels: Sequence[bool], signals: Sequence[str]) -> Calibrator:
    """Fit on [rows, signals] and their labels.

    With one class only, nothing tells rows apart: the result is the smoothed base rate.
    """
    y = np.asarray(labels, dtype=bool)
    mean = values.mean(0) if len(values) else np.zeros(len(signals))
    scale = values.std(0) if len(values) else np.ones(len(signals))
    scale = np.where(scale > 1e-12, scale, 1.0)
    positive, negative = int(y.sum()), int((~y).sum())
    if not positive or not negative:
        rate = (positive + 1) / (len(y) + 2)
        weight, bias = np.zeros(len(signals)), float(np.log(rate / (1 - rate)))
    else:
        weight, bias = _platt((values - mean) / scale, y, positive, negative)
    return Calibrator(
        tuple(signals),
        tuple(map(float, mean)),
        tuple(map(float, scale)),
        tuple(map(float, weight)),
        bias,
    )


def _platt(x: Array, y: Any, positive: int, negative: int) -> tuple[Any, float]:
    from sklearn.linear_model import LogisticRegression

    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    # A soft target t is the same likelihood as one row with weight t and one with 1 − t.
    doubled = np.concatenate([x, x])
    labels = np.concatenate([np.ones(len(x)), np.zeros(len(x))])
    weights = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=np.inf, max_iter=1000, tol=1e-8)
    model.fit(doubled, labels, sample_weight=weights)
    return model.coef_[0], float(model.intercept_[0])
