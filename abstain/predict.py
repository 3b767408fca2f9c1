"""Predictions over many rows: answers, judged against their labels, with calibrated numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from abstain.answer import Answer
from abstain.answerer import Answerer
from abstain.calibration import RIGHT_F1, Calibration
from abstain.metrics import Judged, exact_match, f1
from abstain.router import Decision, Policy, decide
from abstain.signals import SIGNALS, Array, available, matrix
from curate.errors import UserError
from curate.record import Row


def answer_all(answerer: Answerer, rows: Sequence[Row], label: str | None = None) -> list[Answer]:
    """Answers in the order of the rows; with a progress bar, where it has a label."""
    found: dict[int, Answer] = {}
    with tqdm(total=len(rows), desc=label, unit="row", disable=label is None) as bar:
        for pack in answerer.answer(rows):
            found.update(pack)
            bar.update(len(pack))
    return [found[index] for index in range(len(rows))]


def confidences(
    answers: Sequence[Answer], calibration: Calibration | None, has_head: bool
) -> tuple[Array, Array]:
    """P(right) and P(sufficient) of each answer.

    Without a calibration they are the model's own: the geometric mean of its token
    probabilities, and one minus the probability of the abstention phrase.
    """
    if calibration is not None:
        names = calibration.correct.signals
        if "sufficiency_head" in names and not has_head:
            raise UserError("the calibration uses the sufficiency head, and the run has none")
        values = matrix(answers, names)
        return calibration.correct.probability(values), calibration.sufficient.probability(values)
    likelihood = np.array([answer.mean_log_likelihood for answer in answers])
    log_p_abstain = np.array([answer.log_p_abstain for answer in answers])
    return np.exp(likelihood), -np.expm1(np.minimum(log_p_abstain, 0.0))


def route(answerer: Answerer, answers: Sequence[Answer]) -> tuple[Array, Array, list[Decision]]:
    """P(right), P(sufficient) and what is done with each answer, by the run's own policy."""
    calibration = answerer.calibration
    confidence, p_sufficient = confidences(answers, calibration, answerer.head is not None)
    policy = calibration.policy if calibration is not None else Policy(None)
    decisions = [
        decide(answer.abstained, float(value), policy)
        for answer, value in zip(answers, confidence, strict=True)
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
    """Compare predictions with labels; a declined answer counts as the empty one."""
    texts = ["" if no else answer.text for answer, no in zip(answers, declined, strict=True)]
    accepted = [row.answers if row.sufficient else [] for row in rows]
    scores = np.array([f1(text, gold) for text, gold in zip(texts, accepted, strict=True)])
    exact = np.array([exact_match(text, gold) for text, gold in zip(texts, accepted, strict=True)])
    sufficient = np.array([bool(row.sufficient) for row in rows], dtype=bool)
    answered = ~np.asarray(declined, dtype=bool)
    right = answered & sufficient & (scores >= right_f1)
    return Judged(exact, scores, sufficient, answered, right, confidence, p_sufficient)


@dataclass(frozen=True)
class Predictions:
    """Answers to rows, what the model said (`raw`) and what came of it (`routed`)."""

    rows: list[Row]
    answers: list[Answer]
    raw: Judged
    routed: Judged | None  # None where there is no calibration
    rules: list[str]

    def table(self) -> dict[str, list[Any]]:
        """Columns of ``predictions.parquet``."""
        columns: dict[str, list[Any]] = {
            "id": [row.id for row in self.rows],
            "document_id": [row.document_id for row in self.rows],
            "context_id": [row.context_id for row in self.rows],
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
            "rule": self.rules,
            "answered": (self.routed or self.raw).answered.tolist(),
        }
        has_head = any(answer.head_logit is not None for answer in self.answers)
        for name in available(has_head):
            columns[name] = [SIGNALS[name](answer) for answer in self.answers]
        return columns


def predict(answerer: Answerer, rows: list[Row], label: str) -> Predictions:
    """Answer, calibrate, route and judge ``rows``."""
    calibration = answerer.calibration
    answers = answer_all(answerer, rows, label)
    confidence, p_sufficient, decisions = route(answerer, answers)
    right_f1 = calibration.right_f1 if calibration is not None else RIGHT_F1
    said_no = [answer.abstained for answer in answers]
    declined = [decision.action == "decline" for decision in decisions]
    raw = judge(rows, answers, confidence, p_sufficient, right_f1, said_no)
    routed = None
    if calibration is not None:
        routed = judge(rows, answers, confidence, p_sufficient, right_f1, declined)
    return Predictions(rows, answers, raw, routed, [decision.rule for decision in decisions])
