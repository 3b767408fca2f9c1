"""The record of a decision: one line that lets anyone tell what was done with a question, and why.

It is what the log keeps, what `abstain ask --json` prints and what `/v1/ask` answers. Contexts are
kept as hashes, since they may be private.
"""

import json
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from abstain.router import Look, Outcome, Threshold
from curate.errors import os_error
from curate.record import digest


def record(
    question: str,
    said: str,
    outcome: Outcome,
    threshold: Threshold,
    milliseconds: float,
    request_id: str = "",
) -> dict[str, Any]:
    """Everything about one decision; ``said`` is what the person who asked was told."""
    latest = outcome.latest
    return {
        "id": request_id,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "question": question,
        "answer": said,
        "model_answer": latest.text if latest is not None else None,
        **asdict(outcome.decision),
        "guarantee": threshold.promise(),
        "predicted_reason": latest.reason if latest is not None else None,
        "signals": _signals(latest) if latest is not None else {},
        "looks": [_look(look) for look in outcome.looks],
        "cost": outcome.cost,
        "notes": list(outcome.notes),
        "milliseconds": round(milliseconds, 1),
    }


def _signals(look: Look) -> dict[str, float]:
    sufficient = {"p_sufficient": look.p_sufficient} if look.p_sufficient is not None else {}
    return {**look.signals, **sufficient}


def _look(look: Look) -> dict[str, Any]:
    return {
        "model": look.model,
        "context_hash": digest(look.context),
        "retrieved": list(look.retrieved),
        "text": look.text,
        "abstained": look.abstained,
        "head_declines": look.head_declines,
        "may_answer": look.may_answer,
        "confidence": look.confidence,
        "reason": look.reason,
        "signals": _signals(look),
        "milliseconds": round(look.milliseconds, 1),
    }


class DecisionLog:
    """A JSONL file that decisions are appended to, from any thread."""

    def __init__(self, path: Path) -> None:
        """The file is made with the first decision, its folder too."""
        self._path = path
        self._lock = threading.Lock()

    def append(self, entry: dict[str, Any]) -> None:
        """One decision more; raises `UserError` where the file cannot be written."""
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            with self._lock:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(line)
        except OSError as error:
            raise os_error("write the decision log", self._path, error) from error
