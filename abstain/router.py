"""The router: answer or decline, and a log that lets anyone tell why."""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from abstain.answer import Answer
from curate.errors import os_error
from curate.record import digest

Action = Literal["answer", "decline"]


@dataclass(frozen=True)
class Policy:
    """What decides: a threshold on the confidence, and whether it carries a guarantee."""

    threshold: float | None  # None: not calibrated, the model's own word counts
    guarantee: dict[str, Any] | None = None

    def promise(self) -> str:
        """The guarantee in words, or that there is none."""
        if self.guarantee is None:
            return "no guarantee"
        risk, delta = self.guarantee["target_risk"], self.guarantee["delta"]
        tries = self.guarantee["certifications"]
        void = f"; not kept: it is number {tries} tried on the same rows" if tries > 1 else ""
        if delta is None:
            return (
                f"on average, at most {100 * risk:g}% of all questions are answered wrongly{void}"
            )
        # SGR's search is not quite paid for: see `abstain/threshold.py`.
        nearly = ", nearly" if self.guarantee.get("procedure") == "sgr" else ""
        return (
            f"of the questions answered, at most {100 * risk:g}% are wrong, "
            f"with probability {100 * (1 - delta):g}%{nearly}{void}"
        )


@dataclass(frozen=True)
class Decision:
    """What is done with an answer, by which rule, on which numbers."""

    action: Action
    rule: str
    why: str
    confidence: float | None  # None where the head declined before there was an answer
    threshold: float | None


def decide(
    abstained: bool, confidence: float, policy: Policy, head_declines: bool = False
) -> Decision:
    """Decline where head or model says that the context falls short, or confidence is too low.

    The head speaks first: what it declines need not be answered at all.
    """

    def decision(action: Action, rule: str, why: str) -> Decision:
        return Decision(action, rule, why, confidence, policy.threshold)

    if head_declines:
        why = "the sufficiency head reads that the context does not tell"
        return decision("decline", "head_declines", why)
    if abstained:
        return decision("decline", "model_abstained", "the model says the context does not tell")
    if policy.threshold is None:
        return decision("answer", "uncalibrated", "not calibrated: the model's own word counts")
    numbers = f"confidence {confidence:.3f}, threshold {policy.threshold:.3f}"
    if confidence >= policy.threshold:
        return decision("answer", "at_or_above_threshold", f"{numbers} ({policy.promise()})")
    return decision("decline", "below_threshold", f"{numbers} ({policy.promise()})")


def log_decision(
    path: Path,
    question: str,
    context: str,
    answer: Answer,
    decision: Decision,
    signals: dict[str, Any],
) -> None:
    """Append one decision to a JSONL file; the context is kept as a hash, it may be private."""
    entry = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "question": question,
        "context_hash": digest(context),
        "model_answer": answer.text,
        "predicted_reason": answer.reason,
        "signals": signals,
        **asdict(decision),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    except OSError as error:
        raise os_error("write the decision log", path, error) from error
