"""Predictions over many rows: answers, judged against their labels, with calibrated numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from abstain.answer import Answer, Answering
from abstain.calibration import RIGHT_F1, Calibration
from abstain.calibrator import Calibrator
from abstain.groups import resampling_groups
from abstain.metrics import Flags, Judged, exact_match, f1
from abstain.router import Decision, Threshold, verdict
from abstain.signals import Array, available, matrix
from curate.record import Row


def answer_all(
    answerer: Answering, rows: Sequence[Row], label: str | None = None, early: bool = False
) -> list[Answer]:
    """Answers in the order of the rows; with a progress bar, where it has a label.

    ``early``: what the policy declines by the sufficiency head alone is not generated.
    """
    found: dict[int, Answer] = {}
    with tqdm(total=len(rows), desc=label, unit="row", disable=label is None) as bar:
        for pack in answerer.answer(rows, early=early):
            found.update(pack)
            bar.update(len(pack))
    return [found[index] for index in range(len(rows))]


def confidences(
    rows: Sequence[Row], answers: Sequence[Answer], calibration: Calibration | None
) -> tuple[Array, Array]:
    """P(right) and P(sufficient) of each answer.

    Without a calibration they are the model's own: the geometric mean of its token
    probabilities, and one minus the probability of the abstention phrase (of its first token, or
    whether it was said, where a model tells no more).
    """
    if calibration is not None:
        both = (calibration.correct, calibration.sufficient)
        correct, sufficient = (_probability(c, rows, answers) for c in both)
        return correct, sufficient
    likelihood = np.array([answer.mean_log_likelihood for answer in answers])
    return np.exp(likelihood), np.array([_p_sufficient(answer) for answer in answers])


def _probability(calibrator: Calibrator, rows: Sequence[Row], answers: Sequence[Answer]) -> Array:
    """Of answers that the head has declined before they were generated: 0."""
    result = np.zeros(len(rows))
    given = [number for number, answer in enumerate(answers) if not answer.skipped]
    if given:
        some = [rows[i] for i in given], [answers[i] for i in given]
        result[given] = calibrator.probability(matrix(*some, calibrator.signals))
    return result


def head_declines(answers: Sequence[Answer], decline_below: float | None) -> Flags:
    """Whether the sufficiency head alone declines each answer."""
    if decline_below is None:
        return np.zeros(len(answers), dtype=bool)
    return np.array([(answer.head_logit or 0.0) < decline_below for answer in answers], dtype=bool)


def _p_sufficient(answer: Answer) -> float:
    for log_p in (answer.log_p_abstain, answer.log_p_abstain_first):
        if log_p is not None:
            return -math.expm1(min(log_p, 0.0))
    return float(not answer.abstained)


def route(
    answerer: Answering, rows: Sequence[Row], answers: Sequence[Answer]
) -> tuple[Array, Array, list[Decision]]:
    """P(right), P(sufficient) and what is done with each answer, by the run's own policy."""
    calibration = answerer.calibration
    confidence, p_sufficient = confidences(rows, answers, calibration)
    threshold = calibration.threshold_under("") if calibration is not None else Threshold(None)
    declined = head_declines(answers, calibration.decline_below if calibration else None)
    verdicts = [
        verdict(answer.abstained, float(value), threshold, bool(head))
        for answer, value, head in zip(answers, confidence, declined, strict=True)
    ]
    decisions = [
        Decision(
            "answer" if one.passes else "decline", one.rule, one.why, float(sure), threshold.value
        )
        for one, sure in zip(verdicts, confidence, strict=True)
    ]
    return confidence, p_sufficient, decisions


def judge(
    rows: Sequence[Row],
    answers: Sequence[Answer],
    confidence: Array,
    p_sufficient: Array,
    right_f1: float,
    declined: Sequence[bool],
) -> Judged:
    """Compare predictions with labels; a declined answer counts as the empty one.

    An answer is right when its context suffices and its F1 is at least ``right_f1``; 1 asks for an
    exact match.
    """
    texts = ["" if no else answer.text for answer, no in zip(answers, declined, strict=True)]
    accepted = [row.answers if row.sufficient else [] for row in rows]
    scores = np.array([f1(text, gold) for text, gold in zip(texts, accepted, strict=True)])
    exact = np.array([exact_match(text, gold) for text, gold in zip(texts, accepted, strict=True)])
    sufficient = np.array([bool(row.sufficient) for row in rows], dtype=bool)
    answered = ~np.asarray(declined, dtype=bool)
    close_enough = exact == 1 if right_f1 >= 1 else scores >= right_f1
    right = answered & sufficient & close_enough
    return Judged(exact, scores, sufficient, answered, right, confidence, p_sufficient)


@dataclass(frozen=True)
class Predictions:
    """Answers to rows, what the model said (`raw`) and what came of it (`routed`)."""

    rows: list[Row]
    answers: list[Answer]
    groups: list[str]  # what the bootstrap draws
    raw: Judged
    routed: Judged | None  # None where there is no calibration
    rules: list[str]
    signals: dict[str, Array]  # [rows] each, of all signals that the answers can give

    def table(self) -> dict[str, list[Any]]:
        """Columns of ``predictions.parquet``."""
        columns: dict[str, list[Any]] = {
            "id": [row.id for row in self.rows],
            "document_id": [row.document_id for row in self.rows],
            "context_id": [row.context_id for row in self.rows],
            "group": self.groups,
            "question": [row.question for row in self.rows],
            "answers": [row.answers for row in self.rows],
            "sufficient": [row.sufficient for row in self.rows],
            "reason": [row.reason for row in self.rows],
            "method": [row.method for row in self.rows],
            "prediction": ["" if a.abstained else a.text for a in self.answers],
            "abstained": [answer.abstained for answer in self.answers],
            "confidence": self.raw.confidence.tolist(),
            "p_sufficient": self.raw.p_sufficient.tolist(),
            "em": self.raw.em.tolist(),
            "f1": self.raw.f1.tolist(),
            "right": self.raw.right.tolist(),
            "predicted_reason": [answer.reason for answer in self.answers],
            "rule": self.rules,
            "answered": (self.routed or self.raw).answered.tolist(),
        }
        return columns | {name: values.tolist() for name, values in self.signals.items()}


def predict(answerer: Answering, rows: list[Row], label: str) -> Predictions:
    """Answer, calibrate, route and judge ``rows``."""
    calibration = answerer.calibration
    answers = answer_all(answerer, rows, label)
    confidence, p_sufficient, decisions = route(answerer, rows, answers)
    right_f1 = calibration.right_f1 if calibration is not None else RIGHT_F1
    said_no = [answer.abstained for answer in answers]
    declined = [decision.action == "decline" for decision in decisions]
    raw = judge(rows, answers, confidence, p_sufficient, right_f1, said_no)
    routed = None
    if calibration is not None:
        routed = judge(rows, answers, confidence, p_sufficient, right_f1, declined)
    groups, _ = resampling_groups(rows)
    names = available(answers)
    signals = dict(zip(names, matrix(rows, answers, names).T, strict=True))
    rules = [decision.rule for decision in decisions]
    return Predictions(rows, answers, groups, raw, routed, rules, signals)
