"""Choosing a calibrator: by log-loss on rows that it was not fitted on, groups kept together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from abstain.calibrator import Calibrator, Labels, Method, fit
from abstain.folds import group_folds
from abstain.signals import SIGNALS, Array

# The ridge's weight for combinations of signals, each in standard units.
PENALTIES = (1.0, 10.0, 100.0)


@dataclass(frozen=True)
class Candidate:
    """One way of getting a probability from signals."""

    method: Method
    signals: tuple[str, ...]
    penalty: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """The calibrator with the least cross-validated log-loss, and what it was chosen among."""

    calibrator: Calibrator
    probability: Array  # [rows], each from a fit without the row's group
    table: list[dict[str, Any]]  # the candidates, best first

    def to_json(self) -> dict[str, Any]:
        """For the calibration's details: the ten best."""
        return {"candidates": self.table[:10], "of": len(self.table)}


def candidates(names: Sequence[str]) -> list[Candidate]:
    """Every single signal by every method that suits it, and combinations of all."""
    result: list[Candidate] = []
    for name in names:
        methods: list[Method] = ["platt", "beta", "isotonic"]
        if SIGNALS[name].is_log_odds:
            methods.append("temperature")
        result += [Candidate(method, (name,)) for method in methods]
    if len(names) > 1:
        cheap = tuple(name for name in names if SIGNALS[name].is_free)
        for group in dict.fromkeys((cheap, tuple(names))):
            if len(group) > 1:
                result += [Candidate("combination", group, penalty) for penalty in PENALTIES]
    return result


def choose(values: Array, labels: Labels, names: Sequence[str], groups: Sequence[str]) -> Chosen:
    """The best of `candidates` on [rows, signals]; among equals, the first.

    Raises `ValueError` where there are no signals.
    """
    folds = group_folds(groups)
    best: tuple[float, Candidate, Array] | None = None
    table = []
    for candidate in candidates(names):
        columns = values[:, [names.index(name) for name in candidate.signals]]
        probability = cross_fit(candidate, columns, labels, folds)
        loss = log_loss(probability, labels)
        table.append(
            {
                "method": candidate.method,
                "signals": list(candidate.signals),
                "penalty": candidate.penalty,
                "log_loss": loss,
            }
        )
        if best is None or loss < best[0] - 1e-9:
            best = loss, candidate, probability
    if best is None:
        raise ValueError("no signals to choose from")
    _, candidate, probability = best
    columns = values[:, [names.index(name) for name in candidate.signals]]
    calibrator = fit(candidate.method, columns, labels, candidate.signals, candidate.penalty)
    return Chosen(calibrator, probability, sorted(table, key=lambda entry: entry["log_loss"]))


def cross_fit(
    candidate: Candidate, values: Array, labels: Labels, folds: Sequence[tuple[Any, Any]]
) -> Array:
    """Each row's probability from the fit on the folds that it is not in.

    With a single group there are no folds, and the fit has seen its rows.
    """
    method, signals, penalty = candidate.method, candidate.signals, candidate.penalty
    if not folds:
        return fit(method, values, labels, signals, penalty).probability(values)
    result = np.zeros(len(values))
    for train, test in folds:
        fitted = fit(method, values[train], labels[train], signals, penalty)
        result[test] = fitted.probability(values[test])
    return result


def log_loss(probability: Array, labels: Labels) -> float:
    """Mean −log of the probability given to what was the case, in nats; certainty is bounded."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    return float(-np.log(np.where(labels, p, 1 - p)).mean()) if len(p) else 0.0
