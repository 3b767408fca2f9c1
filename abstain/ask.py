"""`abstain ask`: questions about one context, answered or not, each with its reason why."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from abstain.cascade import Cascade
from abstain.decisions import DecisionLog, record
from abstain.router import message
from curate.record import Row


def ask(
    cascade: Cascade, context: str, questions: Sequence[str], log: Path | None
) -> list[dict[str, Any]]:
    """Decide each question, computing what they share once; log and return every decision."""
    rows = [Row(question=question, context=context) for question in questions]
    for row in rows:
        cascade.check(row)
    started = time.perf_counter()
    outcomes = cascade.run(rows)
    each = 1000 * (time.perf_counter() - started) / max(1, len(rows))
    phrase = cascade.answerer.contract.abstention_phrase
    found = [
        record(row.question, message(cascade.policy, one, phrase), one, cascade.threshold, each)
        for row, one in zip(rows, outcomes, strict=True)
    ]
    if log is not None:
        file = DecisionLog(log)
        for entry in found:
            file.append(entry)
    return found
