"""Thresholds: one with a guarantee where the data allow it, else one by cost, marked as such.

The guarantee: *of the questions answered, at most α are wrong, with probability 1 − δ* over the
draw of the calibration rows. Candidates are fixed beforehand on validation; calibration tests
them once, strictest first, by the exact binomial tail, and stops at the first failure
(fixed-sequence Learn-then-Test: Angelopoulos et al. 2021).
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abstain.signals import Array

Flags = NDArray[np.bool_]
_CANDIDATES = 40


@dataclass(frozen=True)
class Guarantee:
    """What was certified, and on what: nothing beyond it is promised."""

    target_risk: float
    delta: float
    threshold: float
    rows: int  # sampling units looked at
    accepted: int  # of them answered at this threshold
    errors: int  # of the accepted wrong
    p_value: float
    tested: int  # candidates looked at

    def to_json(self) -> dict[str, Any]:
        """As stored with a run."""
        return asdict(self)


@dataclass(frozen=True)
class Infeasible:
    """Why nothing could be certified, and how many rows would do; None where no number would."""

    rows: int
    accepted: int
    errors: int
    rows_needed: int | None

    def text(self) -> str:
        """The finding in one sentence."""
        if not self.accepted:
            return f"infeasible: of {self.rows} rows, none is answered at the first candidate"
        found = (
            f"infeasible: with {self.rows} rows, {self.accepted} of them answered at the first "
            f"candidate and {self.errors} of those wrong"
        )
        if self.rows_needed is None:
            return f"{found}, no number of rows would do: the model errs too often at it"
        return f"{found}, about {self.rows_needed:,} rows would be needed"

    def to_json(self) -> dict[str, Any]:
        """As stored with a run."""
        return {**asdict(self), "text": self.text()}


def candidates(
    confidence: Array, answered: Flags, units: int, target_risk: float, delta: float
) -> list[float]:
    """Thresholds in the order of testing, from validation rows alone.

    The first is expected to accept about 2 · ln δ / ln(1 − α) of ``units`` calibration units:
    twice what an errorless sample needs to pass, so that an error or two need not end the
    search at once. The following ones accept more and more, down to every answered row.
    """
    values = np.sort(np.unique(confidence[answered]))[::-1]
    if not len(values):
        return []
    share = np.array([(answered & (confidence >= value)).mean() for value in values])
    first = 2 * math.log(delta) / math.log(1 - target_risk)
    begin = int(np.searchsorted(share * units, first))
    if begin >= len(values):
        begin = len(values) - 1
    steps = np.linspace(begin, len(values) - 1, min(_CANDIDATES, len(values) - begin))
    return [float(values[round(step)]) for step in steps]


def certify(
    thresholds: Sequence[float],
    confidence: Array,
    answered: Flags,
    right: Flags,
    target_risk: float,
    delta: float,
) -> Guarantee | Infeasible:
    """Test the candidates in their order on independent calibration units.

    Error counts are integers and the tail is exact: P(Binomial(accepted, α) ≤ errors) ≤ δ.
    """
    from scipy.stats import binom

    passed: Guarantee | None = None
    for number, threshold in enumerate(thresholds, 1):
        accept = answered & (confidence >= threshold)
        accepted, errors = int(accept.sum()), int((accept & ~right).sum())
        p_value = float(binom.cdf(errors, accepted, target_risk)) if accepted else 1.0
        if p_value > delta:
            break
        passed = Guarantee(
            target_risk, delta, threshold, len(confidence), accepted, errors, p_value, number
        )
    if passed is not None:
        return passed
    accept = answered & (confidence >= thresholds[0]) if thresholds else np.zeros(0, dtype=bool)
    accepted, errors = int(accept.sum()), int((accept & ~right).sum()) if thresholds else 0
    needed = _rows_needed(len(confidence), accepted, errors, target_risk, delta)
    return Infeasible(len(confidence), accepted, errors, needed)


def _rows_needed(
    rows: int, accepted: int, errors: int, target_risk: float, delta: float
) -> int | None:
    """Rows that would pass if errors and acceptance kept their present rates."""
    from scipy.stats import binom

    if not accepted or errors / accepted >= target_risk:
        return None
    rate = errors / accepted
    size = max(accepted, 1)
    while binom.cdf(math.ceil(rate * size), size, target_risk) > delta:
        size = math.ceil(size * 1.05) + 1
        if size > 10_000_000:
            return None
    return math.ceil(size * rows / accepted)


def by_cost(
    confidence: Array, answered: Flags, right: Flags, cost_wrong: float, cost_abstain: float
) -> float:
    """The threshold with the least cost on validation rows; without any guarantee.

    Every wrong answer costs ``cost_wrong``, every question not answered ``cost_abstain``. Among
    equal costs the strictest threshold wins; tied confidences are answered or declined together.
    """
    best_cost, best = cost_abstain * len(confidence), math.inf
    for value in np.sort(np.unique(confidence[answered]))[::-1]:
        accept = answered & (confidence >= value)
        cost = cost_wrong * (accept & ~right).sum() + cost_abstain * (~accept).sum()
        if cost < best_cost - 1e-12:
            best_cost, best = float(cost), float(value)
    # Infinity is not a JSON number, and no confidence exceeds 1.
    return 1.0 + 1e-9 if math.isinf(best) else best
