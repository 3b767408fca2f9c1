"""What people answered, as rows that `curate` reads: with a fold, and the weight each stands for.

A document serves training or calibration, never both, by a coin that does not know what was said
of it. Of a calibration document only uniformly audited questions go along: they alone certify
anything. Of a training document all do; their weights undo that hard ones were asked about sooner,
for whoever counts or trains by them (`train run --row-weights`).
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


def export(
    items: Sequence[Item], calibration_share: float, seed: int, known: Sequence[Row] = ()
) -> Exported:
    """Rows of the answered items; documents go to calibration with this probability.

    ``known`` are the rows of a data set that they are to join: what shares a document or a context
    with one of these goes where that is, and is left out where that is tested or selected on.
    """
    found = Exported()
    rows: list[tuple[Item, Row]] = []
    for item in items:
        if item.status == "answered" and item.reply is not None:
            rows.append((item, row_of(item)))
        else:
            found.left_out[item.status] += 1
    placed = _folds([row for _, row in rows], known, calibration_share, seed)
    for (item, row), fold in zip(rows, placed, strict=True):
        if fold not in ("train", "calibration"):
            found.left_out[f"its document or context is in {fold}"] += 1
        elif fold == "calibration" and not item.audited:
            found.left_out["not audited, in a document for calibration"] += 1
        else:
            # Audits are uniform already: in calibration each stands for as many as the others.
            weight = 1.0 if fold == "calibration" else row.weight
            found.rows.append(replace(row, fold=fold, weight=weight))
    return found


def _folds(
    rows: Sequence[Row], known: Sequence[Row], calibration_share: float, seed: int
) -> list[str]:
    """Each row's fold: one for all that are connected by documents and contexts."""
    first: dict[str, str] = {}  # of names that are connected, what stands for them

    def root(name: str) -> str:
        while first.setdefault(name, name) != name:
            name = first[name]
        return name

    def names(row: Row) -> list[str]:
        found = [f"document {row.document_id}", f"context {row.context_id}"]
        return [name for name in found if not name.endswith(" ")]

    for row in (*known, *rows):
        roots = sorted({root(name) for name in names(row)})
        for one in roots[1:]:
            first[one] = roots[0]
    folds: dict[str, str] = {}
    for row in known:
        for name in names(row):
            folds.setdefault(root(name), row.fold)
    placed = []
    for row in rows:
        group = root(names(row)[0])
        drawn = "calibration" if _coin(group, seed) < calibration_share else "train"
        placed.append(folds.get(group, drawn))
    return placed


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


def _coin(name: str, seed: int) -> float:
    return int(digest(str(seed), name), 16) / 16**20


def rows_to_join(folder: Path) -> list[Row]:
    """The rows of a data set, but for its stream fold: that was what the service was asked."""
    splits = record.read_splits(folder)
    return [row for fold, rows in splits.items() if fold != "stream" for row in rows]
