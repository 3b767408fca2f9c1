"""Metrics of answers, abstention and confidence, on a scale of 0 to 1.

A prediction is right when its row is sufficient and its F1 reaches the bound that the run's
guarantee names. An abstention is never a covered correct answer, and the AURC family ranks
answered rows only. Tied confidences move together: where a ranking is needed within a tie, its
expectation over all orders is taken, so that no result hangs on the order of the rows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abstain.signals import Array
from curate.auroc import auroc
from curate.bootstrap import Interval, intervals
from curate.text import normalise

Flags = NDArray[np.bool_]
Metrics = dict[str, float]


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """SQuAD 2.0's exact match: equal after normalisation to any accepted answer.

    No accepted answer means that the empty prediction, an abstention, is the right one.
    """
    return max(float(normalise(prediction) == normalise(gold)) for gold in answers or [""])


def f1(prediction: str, answers: Sequence[str]) -> float:
    """SQuAD 2.0's F1: harmonic mean of word precision and recall, best over accepted answers."""
    return max(_f1(normalise(prediction).split(), normalise(g).split()) for g in answers or [""])


def is_right(text: str, answers: Sequence[str], right_f1: float) -> bool:
    """Whether an answer is right: F1 of at least ``right_f1``, or, for 1, an exact match.

    Where no answer is accepted, none is right.
    """
    if not answers:
        return False
    return exact_match(text, answers) == 1 if right_f1 >= 1 else f1(text, answers) >= right_f1


def _f1(prediction: list[str], gold: list[str]) -> float:
    if not prediction or not gold:
        return float(prediction == gold)
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold))


@dataclass(frozen=True)
class Judged:
    """Predictions next to their labels, as arrays over rows."""

    em: Array
    f1: Array
    sufficient: Flags  # the label
    answered: Flags  # not abstained
    right: Flags  # answered, sufficient, and F1 at least the bound
    confidence: Array  # P(right)
    p_sufficient: Array  # P(the context suffices)

    def take(self, rows: NDArray[np.int64]) -> "Judged":
        """Some of the rows, possibly more than once (for the bootstrap)."""
        return Judged(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))


def expected_errors(confidence: Array, right: Flags) -> Array:
    """Errors expected among the k most confident rows, for k = 1 … n.

    Within a tie the expectation over its orders grows linearly.
    """
    if not len(confidence):
        return np.zeros(0)
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    errors = np.bincount(group, weights=~right, minlength=len(sizes))
    return np.asarray(np.cumsum(np.repeat(errors / sizes, sizes)))


def aurc(confidence: Array, right: Flags) -> float:
    """Area under the risk–coverage curve: mean over k of the risk among the k most confident.

    (Geifman and El-Yaniv 2017; n steps of width 1/n.)
    """
    errors = expected_errors(confidence, right)
    return float((errors / np.arange(1, len(errors) + 1)).mean()) if len(errors) else float("nan")


def best_aurc(right: Flags) -> float:
    """AURC of the perfect ranking with the same errors."""
    return aurc(right.astype(float), right)


def augrc(confidence: Array, right: Flags) -> float:
    """Area under the generalised risk–coverage curve (Traub et al. 2024): mean of errors / n."""
    errors = expected_errors(confidence, right)
    return float(errors.mean() / len(errors)) if len(errors) else float("nan")


def prr(confidence: Array, right: Flags) -> float:
    """Prediction rejection ratio: how much of the way from random to perfect ranking (by AURC)."""
    risk = float((~right).mean()) if len(right) else float("nan")
    room = risk - best_aurc(right) if len(right) else 0.0
    return (risk - aurc(confidence, right)) / room if room > 0 else float("nan")


def ece(confidence: Array, right: Flags, bins: int = 10) -> float:
    """Expected calibration error over equal-width bins: Σ share · |mean confidence − accuracy|."""
    if not len(confidence):
        return float("nan")
    number = np.clip((confidence * bins).astype(int), 0, bins - 1)
    sums = np.bincount(number, confidence - right.astype(float), minlength=bins)
    return float(np.abs(sums).sum() / len(confidence))


def brier(confidence: Array, right: Flags) -> float:
    """Mean squared distance of the confidence from what happened."""
    return _mean((confidence - right.astype(float)) ** 2)


def coverage_at_risk(judged: Judged, risk: float) -> float:
    """Largest share of all rows that can be answered, by confidence, with at most this risk.

    Chosen on the rows it is reported for, so an upper bound of what a threshold can reach.
    """
    confidence, right = judged.confidence[judged.answered], judged.right[judged.answered]
    if not len(confidence):
        return 0.0
    errors = expected_errors(confidence, right)
    ordered = np.sort(confidence)[::-1]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))  # of each tie
    allowed = ends[errors[ends] <= risk * (ends + 1) + 1e-9]
    return float((allowed.max() + 1) / len(judged.answered)) if len(allowed) else 0.0


def compute(judged: Judged) -> Metrics:
    """All metrics of one block; NaN where a metric is undefined on these rows."""
    answered, sufficient = judged.answered, judged.sufficient
    abstained, insufficient = ~answered, ~sufficient
    confidence, right = judged.confidence[answered], judged.right[answered]
    precision = _mean(insufficient[abstained])
    recall = _mean(abstained[insufficient])
    both = 2 * (abstained & insufficient).sum() / max(1, abstained.sum() + insufficient.sum())
    return {
        "em": _mean(judged.em),
        "f1": _mean(judged.f1),
        "has_ans_em": _mean(judged.em[sufficient]),
        "has_ans_f1": _mean(judged.f1[sufficient]),
        "no_ans_accuracy": recall,
        "abstention_precision": precision,
        "abstention_recall": recall,
        "abstention_f1": float(both),
        "auroc_sufficient": auroc(judged.p_sufficient, sufficient),
        "auroc_correct": auroc(confidence, right),
        "aurc": aurc(confidence, right),
        "e_aurc": aurc(confidence, right) - best_aurc(right),
        "augrc": augrc(confidence, right),
        "prr": prr(confidence, right),
        "ece": ece(confidence, right),
        "brier": brier(confidence, right),
        "coverage": _mean(answered),
        "selective_risk": _mean(~right),
        "coverage_at_risk_05": coverage_at_risk(judged, 0.05),
        "coverage_at_risk_10": coverage_at_risk(judged, 0.10),
        "coverage_at_risk_20": coverage_at_risk(judged, 0.20),
    }


def _mean(values: NDArray[np.generic]) -> float:
    return float(np.mean(values.astype(np.float64))) if len(values) else float("nan")


def with_intervals(judged: Judged, groups: Sequence[str]) -> dict[str, Interval]:
    """Each metric as value, low and high: a 95 % percentile bootstrap over whole groups."""
    return intervals(lambda rows: compute(judged.take(rows)), groups)
