"""Thresholds that suit a purpose, chosen on validation rows, without any guarantee."""

import math
from typing import Literal

import numpy as np

from abstain.signals import Array
from abstain.threshold import AnyUnits, Flags, Units

Aim = Literal["cost", "coverage", "f1"]
NEVER = 1.0 + 1e-9  # no confidence exceeds 1, and infinity is not a JSON number


def by_cost(units: AnyUnits, cost_wrong: float, cost_abstain: float) -> float:
    """The threshold with the least cost.

    Every wrong answer costs ``cost_wrong``, every question not answered ``cost_abstain``. Among
    equal costs the strictest threshold wins.
    """
    best_cost, best = cost_abstain * len(units), NEVER
    for threshold, accepted, errors in zip(*units.curve(), strict=True):
        cost = cost_wrong * errors + cost_abstain * (len(units) - accepted)
        if cost < best_cost - 1e-12:
            best_cost, best = cost, threshold
    return best


def by_coverage(units: AnyUnits, share: float) -> float:
    """The strictest threshold that answers at least this share of all questions.

    Where the model answers fewer, the one that lets all its answers pass.
    """
    needed = math.ceil(share * len(units) - 1e-9)
    best, answered = NEVER, 0
    for threshold, accepted, _ in zip(*units.curve(), strict=True):
        if answered >= needed:
            break
        best, answered = threshold, accepted
    return best


def by_f1(units: Units, f1: Array, sufficient: Flags) -> float:
    """The threshold with the best mean F1 of SQuAD 2.0, where declining is an empty answer.

    ``f1`` [rows] is that of what the model said. Chosen by official scripts on the evaluated rows
    themselves, which makes it an oracle there; here on validation.
    """
    when_declined = (~sufficient).astype(float)
    best_score, best = float(when_declined.mean()) if len(units) else 0.0, NEVER
    for threshold in units.curve()[0]:
        accept = units.answered & (units.confidence >= threshold)
        score = float(np.where(accept, f1, when_declined).mean())
        if score > best_score + 1e-12:
            best_score, best = score, threshold
    return best
