"""Whether what was promised still holds, from questions that people audit while the service runs.

A share of all questions, drawn by a coin and whatever became of them, is answered by people too.
Of those that the model answered, each is right or wrong, and the share of wrong ones lies in a
*confidence sequence*: an interval that holds at all times at once with probability 1 − δ, however
often somebody looks (Robbins 1970; Howard et al. 2021). A fixed sample's interval, looked at every
day until it alarms, would sooner or later alarm without a reason.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from abstain.calibration import RIGHT_F1
from abstain.metrics import is_right
from abstain.queue import Item
from abstain.unguaranteed import NEVER

State = Literal["supported", "open", "refuted", "unguaranteed"]
_PRIOR = (0.5, 4.5)  # of the mixture, where risks of a tenth or so are expected
_SHIFTED = 0.2  # of the population stability index: what is commonly called a shift


def log_evidence(errors: int, count: int, risk: float) -> float:
    """Log of the mixture's likelihood ratio against a risk, from ``errors`` of ``count``.

    Under that risk its exponential is a nonnegative martingale of mean 1, so that it reaches 1/δ at
    any time with probability at most δ (Ville 1939): log [B(a + k, b + n − k) / B(a, b)] minus
    log [riskᵏ (1 − risk)ⁿ⁻ᵏ], with the risk spread as Beta(a, b).
    """
    from scipy.special import betaln, xlog1py, xlogy

    a, b = _PRIOR
    mixed = betaln(a + errors, b + count - errors) - betaln(a, b)
    return float(mixed - xlogy(errors, risk) - xlog1py(count - errors, -risk))


def confidence_sequence(errors: int, count: int, delta: float) -> tuple[float, float]:
    """The risks that the evidence so far does not rule out at level δ, as an interval."""
    from scipy.optimize import brentq

    limit = math.log(1 / delta)

    def beyond(risk: float) -> float:
        return log_evidence(errors, count, risk) - limit

    middle = errors / count if count else 0.5
    if count == 0:
        return 0.0, 1.0
    tiny = 1e-9
    low = 0.0 if beyond(tiny) <= 0 or not errors else float(brentq(beyond, tiny, middle))
    high = 1.0
    if errors < count and beyond(1 - tiny) > 0:
        high = float(brentq(beyond, max(middle, tiny), 1 - tiny))
    return low, high


@dataclass(frozen=True)
class Seen:
    """One look at an audited question: how sure, −∞ where it could not answer; and if rightly."""

    confidence: float
    right: bool


@dataclass(frozen=True)
class Audit:
    """A question that a coin chose and a person answered, and every look that was taken at it."""

    looks: tuple[Seen, ...]
    context: str

    def answer(self, threshold: float) -> Seen | None:
        """The look that answers at a threshold, the first that passes.

        Exact at thresholds up to the one that was in force: a stricter one might have come to looks
        that were never taken.
        """
        return next((look for look in self.looks if look.confidence >= threshold), None)


def audits(items: Sequence[Item], policy: str, right_f1: float = RIGHT_F1) -> list[Audit]:
    """The uniformly audited items of one frozen policy, the oldest first."""
    found = []
    for item in items:
        reply, decision = item.reply, item.decision
        if not item.audited or item.status != "answered" or reply is None or item.policy != policy:
            continue
        accepted = list(reply.answers) if reply.sufficient else []
        looks = []
        for look in decision.get("looks", ()):
            sure = look["confidence"]
            silent = look["abstained"] or look["head_declines"] or not look["may_answer"]
            right = is_right(look["text"], accepted, right_f1)
            looks.append(Seen(-math.inf if silent or sure is None else sure, right))
        found.append(Audit(tuple(looks), item.context or item.id))
    return found


@dataclass(frozen=True)
class Watch:
    """What the audits say of the promise."""

    state: State
    audited: int
    answered: int  # of the audited, at the threshold in force
    wrong: int
    low: float  # the confidence sequence of the risk
    high: float
    target: float | None
    coverage: float | None  # share of the audited that is answered
    shift: float | None  # population stability index of the confidence, against validation
    tighten_to: float | None = None  # where it is refuted: the threshold that audits support

    @property
    def shifted(self) -> bool:
        """Whether questions have changed so far that the calibration speaks of others."""
        return self.shift is not None and self.shift > _SHIFTED

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "shifted": self.shifted}


def watch(
    found: Sequence[Audit],
    threshold: float,
    guarantee: dict[str, Any] | None,
    reference: Sequence[float] = (),
    delta: float = 0.05,
) -> Watch:
    """Hold the audits against the guarantee at the threshold that it was given with.

    ``reference`` are quantiles of the confidence on validation, at even distances.
    """
    answers = [look for one in found if (look := one.answer(threshold)) is not None]
    wrong = sum(not look.right for look in answers)
    low, high = confidence_sequence(wrong, len(answers), delta)
    target = guarantee["target_risk"] if guarantee is not None else None
    state: State = "unguaranteed"
    if target is not None:
        state = "refuted" if low > target else "supported" if high <= target else "open"
    first = [one.looks[0].confidence for one in found if one.looks]
    sure = [confidence for confidence in first if math.isfinite(confidence)]
    return Watch(
        state,
        len(found),
        len(answers),
        wrong,
        low,
        high,
        target,
        len(answers) / len(found) if found else None,
        stability_index(sure, reference) if reference and len(sure) >= 50 else None,
        tightened(found, threshold, target, delta) if target and state == "refuted" else None,
    )


def tightened(found: Sequence[Audit], threshold: float, target: float, delta: float) -> float:
    """The laxest threshold above the present one at which audits support the target risk.

    Candidates are tested from the strictest on that has enough audits to pass at all, until one
    fails (fixed-sequence testing); above 1 where none passes: then nothing is answered. Nor is
    anything where questions were looked at several times: what a stricter threshold would have come
    to, nobody has seen.
    """
    if any(len(one.looks) > 1 for one in found):
        return NEVER
    given = sorted(
        (look for one in found if (look := one.answer(threshold)) is not None),
        key=lambda look: -look.confidence,
    )
    best = NEVER
    enough = next((n for n in range(1, len(given) + 1) if _passes(0, n, target, delta)), None)
    if enough is None:
        return best
    wrong = 0
    for count, look in enumerate(given, 1):
        wrong += not look.right
        tied = count < len(given) and given[count].confidence == look.confidence
        if count < enough or tied:
            continue
        if not _passes(wrong, count, target, delta):
            break
        best = look.confidence
    return best


def _passes(wrong: int, count: int, target: float, delta: float) -> bool:
    return wrong / count <= target and log_evidence(wrong, count, target) >= math.log(1 / delta)


def stability_index(values: Sequence[float], reference: Sequence[float]) -> float:
    """Population stability index: Σ (p − q) ln(p / q) over the reference's quantile bins.

    0 for the same distribution; above 0.2 is commonly called a shift. Each bin is given half a
    value more, so that an empty one is not infinite.
    """
    quantiles = np.asarray(reference)
    edges, first = np.unique(quantiles[1:-1], return_index=True)
    below = (first + 1) / (len(quantiles) - 1)  # share of the reference below each edge
    expected = np.diff([0.0, *below, 1.0])
    counts = np.bincount(np.searchsorted(edges, values, "right"), minlength=len(expected))
    p = (counts + 0.5) / (counts + 0.5).sum()
    q = (expected * len(values) + 0.5) / (expected * len(values) + 0.5).sum()
    return float(((p - q) * np.log(p / q)).sum())
