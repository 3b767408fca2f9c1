"""Thresholds with a guarantee, or an honest "infeasible".

A procedure looks at the calibration units once and returns the threshold that answers most among
those that it can vouch for:

- ``fixed-sequence``: candidates fixed beforehand on validation, tested from the strictest on by the
  exact binomial tail until the first failure (Learn-then-Test: Angelopoulos et al. 2021).
- ``holm``: the same candidates, every one of them tested, with Holm's correction (1979).
- ``sgr``: selection with guaranteed risk (Geifman and El-Yaniv 2017): a binary search over the
  units' own confidences, each of its steps a Clopper–Pearson bound at δ / steps. The search follows
  the errors that it bounds, which the union over its steps does not quite pay for:
  `benchmarks/guarantee.py` shows what that costs.
- ``crc``: conformal risk control (Angelopoulos et al. 2022) of *answered and wrong* among all
  questions. It holds on average over calibration sets, not with probability 1 − δ.

The first two promise: *of the questions answered, at most α are wrong, with probability 1 − δ* over
the draw of the calibration units; SGR does so nearly. Tied confidences are answered or declined
together.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from abstain.signals import Array
from curate.errors import UserError

Flags = NDArray[np.bool_]
Procedure = Literal["fixed-sequence", "holm", "sgr", "crc"]
PROCEDURES: tuple[Procedure, ...] = get_args(Procedure)
_CANDIDATES = 40
# A search for a sample size that would do ends here.
_MOST_UNITS = 10_000_000


@dataclass(frozen=True)
class Goal:
    """The promise that is asked for, and how it is to be kept."""

    risk: float = 0.10  # α
    delta: float = 0.05  # δ
    procedure: Procedure = "fixed-sequence"


@dataclass(frozen=True)
class Units:
    """Independent questions: how sure, whether the model answered, whether rightly."""

    confidence: Array
    answered: Flags
    right: Flags

    def __len__(self) -> int:
        return len(self.confidence)

    def count(self, threshold: float) -> tuple[int, int]:
        """How many are answered at a threshold, and how many of those wrongly."""
        accept = self.answered & (self.confidence >= threshold)
        return int(accept.sum()), int((accept & ~self.right).sum())

    def curve(self) -> tuple[list[float], list[int], list[int]]:
        """Every confidence at which more units are answered, the strictest first.

        With it, how many are answered there, and how many of those wrongly.
        """
        values, tie = np.unique(self.confidence[self.answered], return_inverse=True)
        accepted = np.bincount(tie, minlength=len(values))[::-1].cumsum()
        wrong = np.bincount(tie[~self.right[self.answered]], minlength=len(values))
        return values[::-1].tolist(), accepted.tolist(), wrong[::-1].cumsum().tolist()


@dataclass(frozen=True)
class StagedUnits:
    """Independent questions, each looked at several times: the first look that passes answers."""

    confidence: Array  # [units, looks]; −∞ where a look cannot answer, or there is none
    right: Flags  # [units, looks]

    def __len__(self) -> int:
        return len(self.confidence)

    def of(self, units: Flags) -> "StagedUnits":
        """Some of them."""
        return StagedUnits(self.confidence[units], self.right[units])

    def count(self, threshold: float) -> tuple[int, int]:
        """How many are answered at a threshold, and how many of those wrongly."""
        if not self.confidence.size:
            return 0, 0
        passes = self.confidence >= threshold
        first = passes.argmax(1)
        right = self.right[np.arange(len(self)), first]
        accept = passes.any(1)
        return int(accept.sum()), int((accept & ~right).sum())

    def curve(self) -> tuple[list[float], list[int], list[int]]:
        """As of `Units`; a laxer threshold may be met by an earlier look, with another answer."""
        values = np.unique(self.confidence[np.isfinite(self.confidence)])[::-1].tolist()
        counts = [self.count(value) for value in values]
        return values, [accepted for accepted, _ in counts], [wrong for _, wrong in counts]


@dataclass(frozen=True)
class Guarantee:
    """What was certified, and on what: nothing beyond it is promised."""

    procedure: Procedure
    target_risk: float
    delta: float | None  # None: on average over calibration sets
    threshold: float
    rows: int  # sampling units looked at
    accepted: int  # of them answered at this threshold
    errors: int  # of the accepted wrong
    tested: int  # thresholds looked at
    p_value: float | None = None  # of "the risk exceeds α", before any correction
    risk_bound: float | None = None  # upper bound of the risk, where the procedure gives one

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

    def text(self, unit: str) -> str:
        """The finding in one sentence; ``unit`` is what was counted: contexts, or questions."""
        if not self.accepted:
            return f"infeasible: of {self.rows} {unit}, none is answered at the first candidate"
        found = (
            f"infeasible: with {self.rows} {unit}, {self.accepted} of them answered at the "
            f"candidate nearest to passing and {self.errors} of those wrong"
        )
        if self.rows_needed is None:
            return f"{found}; at this rate of errors no number of {unit} would do"
        return f"{found}; at these rates about {self.rows_needed:,} {unit} would do"

    def to_json(self) -> dict[str, Any]:
        """As stored with a run."""
        return asdict(self)


AnyUnits = Units | StagedUnits


def candidates(validation: AnyUnits, units: int, goal: Goal) -> list[float]:
    """Thresholds in the order of testing, from validation rows alone.

    The first is the one that ``units`` calibration units are expected to pass most surely, by the
    p-value that validation's rates would give there: a stricter one has too few units, a laxer one
    too many errors. The following ones accept more and more, down to every answered row.
    """
    values, accepted, errors = validation.curve()
    if not values:
        return []
    expected = []
    for count, wrong in zip(accepted, errors, strict=True):
        size = int(count / len(validation) * units)
        rate = (wrong + 0.5) / (count + 1)
        expected.append(tail(size, math.ceil(rate * size), goal.risk))
    begin = int(np.argmin(expected))
    steps = np.linspace(begin, len(values) - 1, min(_CANDIDATES, len(values) - begin))
    return [values[round(step)] for step in steps]


def certify(thresholds: Sequence[float], units: AnyUnits, goal: Goal) -> Guarantee | Infeasible:
    """Look at independent calibration units, once, by the procedure of the goal.

    ``thresholds`` are the candidates, the strictest first; SGR and conformal risk control find
    their own among the units' confidences, and need errors that grow as the threshold falls, which
    those of staged units do not.
    """
    if isinstance(units, StagedUnits) and goal.procedure in ("sgr", "crc"):
        raise UserError(
            f"the procedure {goal.procedure} cannot certify a policy that looks several times; "
            "use fixed-sequence or holm"
        )
    procedures: dict[Procedure, Callable[..., Guarantee | Infeasible]] = {
        "fixed-sequence": _fixed_sequence,
        "holm": _holm,
        "sgr": _sgr,
        "crc": _crc,
    }
    return procedures[goal.procedure](thresholds, units, goal)


def tail(accepted: int, errors: int, risk: float) -> float:
    """P(Binomial(accepted, risk) ≤ errors): the exact p-value of "the risk exceeds it"."""
    from scipy.special import bdtr

    return float(bdtr(errors, accepted, risk)) if accepted else 1.0


def upper_bound(accepted: int, errors: int, delta: float) -> float:
    """Clopper–Pearson's upper bound of the risk at confidence 1 − δ, from integer counts.

    The quantile 1 − δ of Beta(errors + 1, accepted − errors).
    """
    from scipy.special import betaincinv

    if errors >= accepted:
        return 1.0
    return float(betaincinv(errors + 1, accepted - errors, 1 - delta))


def _fixed_sequence(
    thresholds: Sequence[float], units: AnyUnits, goal: Goal
) -> Guarantee | Infeasible:
    passed: Guarantee | None = None
    for number, threshold in enumerate(thresholds, 1):
        p_value = tail(*units.count(threshold), goal.risk)
        if p_value > goal.delta:
            break
        passed = _guarantee(threshold, units, goal, number, p_value)
    return passed or _infeasible(thresholds, units, goal, goal.delta)


def _holm(thresholds: Sequence[float], units: AnyUnits, goal: Goal) -> Guarantee | Infeasible:
    p_values = {threshold: tail(*units.count(threshold), goal.risk) for threshold in thresholds}
    passed = []
    for number, threshold in enumerate(sorted(p_values, key=lambda t: p_values[t])):
        if p_values[threshold] > goal.delta / (len(p_values) - number):
            break
        passed.append(threshold)
    if not passed:
        return _infeasible(thresholds, units, goal, goal.delta / max(1, len(p_values)))
    least = min(passed)
    return _guarantee(least, units, goal, len(p_values), p_values[least])


def _sgr(_: Sequence[float], units: AnyUnits, goal: Goal) -> Guarantee | Infeasible:
    own, accepted, errors = units.curve()
    steps = max(1, math.ceil(math.log2(len(own) + 1)))
    level = goal.delta / steps
    low, high = 0, len(own)  # the least strict threshold that passes lies before ``high``
    found: Guarantee | None = None
    while low < high:
        middle = (low + high) // 2
        if upper_bound(accepted[middle], errors[middle], level) <= goal.risk:
            found = _guarantee(own[middle], units, goal, steps, None)
            low = middle + 1
        else:
            high = middle
    return found or _infeasible(_nearest(units, goal), units, goal, level)


def _nearest(units: AnyUnits, goal: Goal) -> list[float]:
    """The threshold that comes nearest to passing, where a procedure finds its own."""
    own, accepted, errors = units.curve()
    p_values = [tail(n, wrong, goal.risk) for n, wrong in zip(accepted, errors, strict=True)]
    return [own[int(np.argmin(p_values))]] if own else []


def _crc(_: Sequence[float], units: AnyUnits, goal: Goal) -> Guarantee | Infeasible:
    own, accepted, errors = units.curve()
    # Errors grow as the threshold falls, so that those which pass are the strictest ones.
    passed = [
        threshold
        for threshold, wrong in zip(own, errors, strict=True)
        if (wrong + 1) / (len(units) + 1) <= goal.risk
    ]
    if not passed:
        wrong = sum(errors[:1])
        rate = wrong / max(1, len(units))
        # With this rate e at the strictest threshold, the least n with (e · n + 1) / (n + 1) ≤ α.
        enough = goal.risk > rate
        needed = math.ceil((1 - goal.risk) / (goal.risk - rate) - 1e-9) if enough else None
        return Infeasible(len(units), sum(accepted[:1]), wrong, needed)
    return _guarantee(passed[-1], units, goal, len(own), None)


def _guarantee(
    threshold: float, units: AnyUnits, goal: Goal, tested: int, p_value: float | None
) -> Guarantee:
    accepted, errors = units.count(threshold)
    bound = None
    if goal.procedure == "sgr":
        bound = upper_bound(accepted, errors, goal.delta / tested)
    delta = None if goal.procedure == "crc" else goal.delta
    return Guarantee(
        goal.procedure,
        goal.risk,
        delta,
        threshold,
        len(units),
        accepted,
        errors,
        tested,
        p_value,
        bound,
    )


def _infeasible(
    thresholds: Sequence[float], units: AnyUnits, goal: Goal, level: float
) -> Infeasible:
    accepted, errors = units.count(thresholds[0]) if thresholds else (0, 0)
    needed = _units_needed(len(units), accepted, errors, goal.risk, level)
    return Infeasible(len(units), accepted, errors, needed)


def _units_needed(units: int, accepted: int, errors: int, risk: float, level: float) -> int | None:
    """Units that would pass if errors and acceptance kept their present rates."""
    if not accepted or errors / accepted >= risk:
        return None
    rate, size = errors / accepted, accepted
    while tail(size, math.ceil(rate * size), risk) > level:
        size = math.ceil(size * 1.05) + 1
        if size > _MOST_UNITS:
            return None
    return math.ceil(size * units / accepted)
