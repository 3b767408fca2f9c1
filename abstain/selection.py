"""Choosing a calibrator: by log-loss on rows that it was not fitted on, groups kept together.

Of some eighty candidates the least loss is in part luck: on a few dozen rows a single signal wins
that other rows know nothing of. So the one-standard-error rule (Breiman et al. 1984) decides:
candidates come in families, and the first one is taken whose best member loses no more than one
standard error, or `WORTHWHILE`, to the best of all. Free signals come before those that cost
passes, which have to pay; a combination comes before single signals, since it averages out what
each owes to chance.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from abstain.calibrator import Calibrator, Labels, Method, fit
from abstain.folds import group_folds
from abstain.signals import SIGNALS, Array

# The ridge's weight for combinations of signals, each in standard units.
PENALTIES = (1.0, 10.0, 100.0)
# Nats: between two prints of one signal the standard error is nothing, and so is the gain.
WORTHWHILE = 0.01


@dataclass(frozen=True)
class Candidate:
    """One way of getting a probability from signals."""

    method: Method
    signals: tuple[str, ...]
    penalty: float = 0.0


@dataclass(frozen=True)
class Tried:
    """A candidate with what it says of rows that it was not fitted on."""

    candidate: Candidate
    probability: Array  # [rows], each from a fit without the row's group
    losses: Array  # [rows], in nats
    behind: float = 0.0  # mean loss above the least one
    standard_error: float = 0.0  # of that difference

    @property
    def log_loss(self) -> float:
        """Mean over the rows; 0 without rows."""
        return float(self.losses.mean()) if len(self.losses) else 0.0

    def to_json(self) -> dict[str, Any]:
        """A line of the selection's table."""
        return {
            "method": self.candidate.method,
            "signals": list(self.candidate.signals),
            "penalty": self.candidate.penalty,
            "log_loss": self.log_loss,
            "behind": self.behind,
            "standard_error": self.standard_error,
        }


@dataclass(frozen=True)
class Chosen:
    """The calibrator that the one-standard-error rule takes, and what it was chosen among."""

    calibrator: Calibrator
    tried: Tried
    table: list[dict[str, Any]]  # all candidates, least log-loss first

    @property
    def probability(self) -> Array:
        """[rows], each from a fit without the row's group."""
        return self.tried.probability

    def to_json(self) -> dict[str, Any]:
        """For the calibration's details: the one chosen, and the ten of least loss."""
        return {
            "chosen": self.tried.to_json(),
            "candidates": self.table[:10],
            "of": len(self.table),
        }


def families(names: Sequence[str]) -> list[list[Candidate]]:
    """Of the free signals, then of all: combinations, and single ones by every method that suits.

    A family that these signals cannot form is left out.
    """
    cheap = tuple(name for name in names if SIGNALS[name].is_free)
    result = []
    for group in dict.fromkeys((cheap, tuple(names))):
        if len(group) > 1:
            result.append([Candidate("combination", group, penalty) for penalty in PENALTIES])
        if single := [Candidate(method, (name,)) for name in group for method in _methods(name)]:
            result.append(single)
    return result


def _methods(name: str) -> list[Method]:
    methods: list[Method] = ["platt", "beta", "isotonic"]
    return [*methods, "temperature"] if SIGNALS[name].is_log_odds else methods


def choose(values: Array, labels: Labels, names: Sequence[str], groups: Sequence[str]) -> Chosen:
    """The calibrator for [rows, signals] that the module's rule takes; among equals, the first.

    Raises `ValueError` where there are no signals.
    """
    if not names:
        raise ValueError("no signals to choose from")
    folds = group_folds(groups)

    def columns(candidate: Candidate) -> Array:
        return values[:, [names.index(name) for name in candidate.signals]]

    found = families(names)
    distinct = dict.fromkeys(candidate for family in found for candidate in family)
    tried = {c: _try(c, columns(c), labels, folds) for c in distinct}
    least = _least(list(tried.values()))
    tried = {c: _compared(one, least, groups) for c, one in tried.items()}
    bests = [_least([tried[candidate] for candidate in family]) for family in found]
    taken = next(best for best in bests if best.behind <= max(best.standard_error, WORTHWHILE))
    candidate = taken.candidate
    calibrator = fit(
        candidate.method, columns(candidate), labels, candidate.signals, candidate.penalty
    )
    everything = sorted(tried.values(), key=lambda one: one.log_loss)
    return Chosen(calibrator, taken, [one.to_json() for one in everything])


def _try(
    candidate: Candidate, values: Array, labels: Labels, folds: Sequence[tuple[Any, Any]]
) -> Tried:
    probability = cross_fit(candidate, values, labels, folds)
    return Tried(candidate, probability, losses(probability, labels))


def _least(tried: Sequence[Tried]) -> Tried:
    """The one of least loss; of those that differ by rounding alone, the first."""
    return min(tried, key=lambda one: round(one.log_loss, 9))


def _compared(tried: Tried, least: Tried, groups: Sequence[str]) -> Tried:
    """With its mean difference d from the least loss, and that mean's standard error.

    Rows of a group are not independent, so it is the groups' sums that vary (Liang and Zeger
    1986): √(G / (G − 1) · Σ over groups of (Σ of d − mean d)²) / rows. With one group it is 0.
    """
    difference = tried.losses - least.losses
    if len(set(groups)) < 2:
        return replace(tried, behind=tried.log_loss - least.log_loss)
    residuals: dict[str, float] = defaultdict(float)
    for group, value in zip(groups, difference - difference.mean(), strict=True):
        residuals[group] += value
    count = len(residuals)
    spread = sum(value**2 for value in residuals.values()) * count / (count - 1)
    return replace(
        tried,
        behind=float(difference.mean()),
        standard_error=float(np.sqrt(spread)) / len(difference),
    )


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


def losses(probability: Array, labels: Labels) -> Array:
    """−log of the probability given to what was the case, in nats; certainty is bounded."""
    p = np.clip(probability, 1e-6, 1 - 1e-6)
    loss: Array = -np.log(np.where(labels, p, 1 - p))
    return loss


def log_loss(probability: Array, labels: Labels) -> float:
    """Mean of `losses`; 0 without rows."""
    return float(losses(probability, labels).mean()) if len(labels) else 0.0
