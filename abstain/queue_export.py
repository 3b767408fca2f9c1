"""What people answered, as rows that `curate` reads: with a fold, and the weight each stands for.

A document serves training or calibration, never both, by a coin that does not know what was said
of it. Of a calibration document only uniformly audited questions go along: they alone certify
anything. Of a training document all do; weights undo that hard ones were sooner asked about.
"""

import datetime
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from abstain.queue import Item
from curate import record
from curate.dedup import context_id
from curate.generate.checks import span_of
from curate.record import NOT_A_SPAN, Row, digest

SOURCE = "queue"


@dataclass
class Exported:
    """The rows, and what became of the items that are none."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, object]:
        """For a program."""
        folds = Counter(row.fold for row in self.rows)
        return {"rows": len(self.rows), "folds": dict(folds), "left_out": dict(self.left_out)}


def export(items: Sequence[Item], calibration_share: float, seed: int) -> Exported:
    """Rows of the answered items; documents go to calibration with this probability."""
    found = Exported()
    for item in items:
        if item.status != "answered" or item.reply is None:
            found.left_out[item.status] += 1
            continue
        row = row_of(item)
        certifies = _coin(row.document_id, seed) < calibration_share
        if certifies and not item.audited:
            found.left_out["not audited, in a document for calibration"] += 1
            continue
        found.rows.append(replace(row, fold="calibration" if certifies else "train"))
    return found


def row_of(item: Item) -> Row:
    """An item as a row; its label is what a person said, where one has."""
    reply, context = item.reply, item.context
    spans = []
    if reply is not None and reply.sufficient:
        spans = [span_of(context, text) or (text, NOT_A_SPAN) for text in reply.answers]
    reason = ""
    if reply is not None and not reply.sufficient:
        reason = reply.reason or ("unlabelled" if context.strip() else "no_context")
    said = item.answered if item.answered is not None else item.created
    return Row(
        question=item.question,
        context=context,
        history=item.history,
        answers=[text for text, _ in spans],
        answer_starts=[start for _, start in spans],
        sufficient=reply.sufficient if reply is not None else None,
        reason=reason,
        document_id=item.document or f"{SOURCE}:{context_id(context) or item.id}",
        context_id=context_id(context),
        source=SOURCE,
        source_id=item.id,
        retrieved_at=datetime.datetime.fromtimestamp(said, datetime.UTC).isoformat(),
        weight=1.0 / item.inclusion if item.inclusion else 1.0,
    ).stamped()


def _coin(document: str, seed: int) -> float:
    return int(digest(str(seed), document), 16) / 16**20


def with_data(rows: Sequence[Row], folder: Path) -> list[Row]:
    """The rows behind those of a data set, whose stream fold was what the service was asked."""
    splits = record.read_splits(folder)
    return [row for fold, known in splits.items() if fold != "stream" for row in known] + list(rows)
