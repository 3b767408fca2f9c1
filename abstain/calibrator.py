"""Calibrators: from signals to a probability, as a handful of numbers.

Each takes a weighted sum of signals, z = bias + Σ weight · (signal − mean) / scale, and bends it:

- ``platt`` (Platt 1999): σ(z), an unpenalised fit (a penalty would make the probabilities timid),
  kept finite on separable data by his smoothed targets (N₊ + 1) / (N₊ + 2) and 1 / (N₋ + 2).
- ``temperature`` (Guo et al. 2017): σ(x / T) of one signal that is a log-odds.
- ``beta`` (Kull et al. 2017): σ(a · ln s − b · ln(1 − s) + c) with s = σ(z), a and b not negative.
- ``isotonic`` (Zadrozny and Elkan 2002): a rising line through the pooled rates, kept off 0 and 1.
- ``combination``: σ(z) over several signals, fitted with a ridge penalty, since they are alike.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abstain.signals import Array

Labels = NDArray[np.bool_]
Method = Literal["platt", "temperature", "beta", "isotonic", "combination"]


@dataclass(frozen=True)
class Calibrator:
    """P(y = 1) as a function of signals: numbers, no pickle."""

    method: Method
    signals: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weight: tuple[float, ...]
    bias: float
    beta: tuple[float, float, float] = (1.0, 1.0, 0.0)  # a, b, c
    knots: tuple[tuple[float, ...], tuple[float, ...]] = ((), ())  # of z, and their probabilities

    def probability(self, values: Array) -> Array:
        """[rows, signals] to [rows]."""
        z = self.score(values)
        if self.method == "isotonic":
            return np.interp(z, *self.knots)
        if self.method == "beta":
            a, b, c = self.beta
            # ln σ(z) = −ln(1 + exp(−z)), without overflow
            z = -a * np.logaddexp(0, -z) + b * np.logaddexp(0, z) + c
        return sigmoid(z)

    def score(self, values: Array) -> Array:
        """The weighted sum z, [rows]."""
        standard = (values - np.array(self.mean)) / np.array(self.scale)
        return np.asarray(self.bias + standard @ np.array(self.weight))

    def to_json(self) -> dict[str, Any]:
        """The numbers, as they are stored with a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Calibrator":
        """What `to_json` stored."""
        known = {field.name: value[field.name] for field in fields(cls)}
        for name in ("signals", "mean", "scale", "weight", "beta"):
            known[name] = tuple(known[name])
        known["knots"] = (tuple(known["knots"][0]), tuple(known["knots"][1]))
        return cls(**known)


def sigmoid(z: Array) -> Array:
    """1 / (1 + exp(−z)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(z / 2)))


def fit(
    method: Method, values: Array, labels: Labels, signals: Sequence[str], penalty: float = 0.0
) -> Calibrator:
    """Fit one method on [rows, signals] and their labels.

    ``penalty`` is the ridge's weight (of ``combination`` alone). With one class only, nothing tells
    rows apart: the result is the smoothed base rate.
    """
    if not labels.any() or labels.all():
        rate = (labels.sum() + 1) / (len(labels) + 2)
        width = len(signals)
        bias = float(np.log(rate / (1 - rate)))
        zeros, ones = (0.0,) * width, (1.0,) * width
        return Calibrator("platt", tuple(signals), zeros, ones, zeros, bias)
    if method == "temperature":
        return Calibrator(
            method, tuple(signals), (0.0,), (_temperature(values, labels),), (1.0,), 0.0
        )
    mean = values.mean(0)
    scale = np.where(values.std(0) > 1e-12, values.std(0), 1.0)
    standard = (values - mean) / scale
    weight, bias = _logistic(standard, labels, penalty)
    linear = (tuple(signals), _numbers(mean), _numbers(scale), _numbers(weight), bias)
    if method == "beta":
        return Calibrator(method, *linear, beta=_beta(standard @ weight + bias, labels))
    if method == "isotonic":
        return Calibrator(method, *linear, knots=_isotonic(standard @ weight + bias, labels))
    return Calibrator(method, *linear)


def _numbers(values: Array) -> tuple[float, ...]:
    return tuple(map(float, values))


def _logistic(x: Array, y: Labels, penalty: float) -> tuple[Array, float]:
    from sklearn.linear_model import LogisticRegression

    positive, negative = y.sum(), (~y).sum()
    target = np.where(y, (positive + 1) / (positive + 2), 1 / (negative + 2))
    # A soft target t is the same likelihood as one row with weight t and one with 1 − t.
    doubled = np.concatenate([x, x])
    labels = np.concatenate([np.ones(len(x)), np.zeros(len(x))])
    weights = np.concatenate([target, 1 - target])
    model = LogisticRegression(C=1 / penalty if penalty else np.inf, max_iter=1000, tol=1e-8)
    model.fit(doubled, labels, sample_weight=weights)
    return model.coef_[0], float(model.intercept_[0])


def _temperature(values: Array, labels: Labels) -> float:
    from scipy.optimize import minimize_scalar

    signed = np.where(labels, values[:, 0], -values[:, 0])

    def loss(log_t: float) -> float:
        return float(np.logaddexp(0, -signed / np.exp(log_t)).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 8), method="bounded").x))


def _beta(z: Array, labels: Labels) -> tuple[float, float, float]:
    """Logistic regression on ln s and −ln(1 − s); a negative coefficient's feature is left out."""
    features = np.stack([-np.logaddexp(0, -z), np.logaddexp(0, z)], 1)
    weight, c = _logistic(features, labels, 0.0)
    if (weight < 0).any():
        kept = int(np.argmax(weight))
        one, c = _logistic(features[:, [kept]], labels, 0.0)
        weight = np.zeros(2)
        if one[0] < 0:  # nothing rises with the score: what is left is the base rate
            return 0.0, 0.0, float(np.log((labels.sum() + 1) / ((~labels).sum() + 1)))
        weight[kept] = one[0]
    return float(weight[0]), float(weight[1]), c


def _isotonic(z: Array, labels: Labels) -> tuple[tuple[float, ...], tuple[float, ...]]:
    from sklearn.isotonic import IsotonicRegression

    margin = 1 / (len(labels) + 2)
    model = IsotonicRegression(y_min=margin, y_max=1 - margin, out_of_bounds="clip")
    model.fit(z, labels)
    return _numbers(model.X_thresholds_), _numbers(model.y_thresholds_)
