"""`abstain ask`: questions about one context, answered or declined, each with its reason why."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from abstain.answer import Answering
from abstain.predict import answer_all, route
from abstain.router import Decision, log_decision
from abstain.signals import available, matrix
from curate.record import Row


@dataclass(frozen=True)
class Response:
    """What a question is answered with, what the model had said, and what decided."""

    question: str
    answer: str  # the abstention phrase where the router declines
    model_answer: str
    decision: Decision
    predicted_reason: str | None  # why the context would fall short; None without a reason head
    signals: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        said = {"question": self.question, "answer": self.answer, "model_answer": self.model_answer}
        decided = {**asdict(self.decision), "predicted_reason": self.predicted_reason}
        return {**said, **decided, "signals": self.signals}


def ask(
    answerer: Answering, context: str, questions: Sequence[str], log: Path | None
) -> list[Response]:
    """Answer or decline each question, computing the context once; log every decision."""
    rows = [Row(question=question, context=context) for question in questions]
    answers = answer_all(answerer, rows, early=True)
    _, p_sufficient, decisions = route(answerer, rows, answers)
    responses = []
    for row, answer, decision, sufficient in zip(
        rows, answers, decisions, p_sufficient, strict=True
    ):
        names = available([answer])
        [values] = matrix([row], [answer], names)
        signals = dict(zip(names, map(float, values), strict=True))
        if answer.skipped:  # declined before there was anything to be confident of
            decision = replace(decision, confidence=None)
        else:
            signals["p_sufficient"] = float(sufficient)
        if log is not None:
            log_decision(log, row.question, context, answer, decision, signals)
        said = answer.text if decision.action == "answer" else answerer.contract.abstention_phrase
        responses.append(
            Response(row.question, said, answer.text, decision, answer.reason, signals)
        )
    return responses
