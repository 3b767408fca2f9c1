"""A batch to publish: its CSV, the page that shows a task, and the key that stays with us."""

import csv
import html
import importlib.resources
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curate import record
from curate.errors import UserError
from curate.files import exists, replacing, write_text
from curate.record import Passage, Row, digest

Task = Literal["label", "write"]
_FIELDS: dict[Task, tuple[str, ...]] = {
    "label": ("id", "question", "context"),
    "write": ("id", "context"),
}


@dataclass(frozen=True)
class Batch:
    """What was asked: the rows by id, and those among them whose label is known."""

    task: Task
    rows: dict[str, Row]
    gold: dict[str, Row]


def to_label(rows: Sequence[Row], gold: Sequence[Row], share: float, seed: int) -> Batch:
    """Rows to judge, and among them so many whose label is known that they make up ``share``.

    Where ``rows`` are themselves the qualification set, all tasks are of it.
    """
    known = {row.id for row in gold}
    unlabelled = [row.id for row in gold if row.sufficient is None]
    if unlabelled:
        raise UserError(
            f"the qualification set has rows without a label, {unlabelled[0]} the first"
        )
    asked = [row for row in rows if row.id not in known]
    if not asked:
        return Batch("label", {}, {row.id: row for row in gold})
    count = round(len(asked) * share / (1 - share))
    drawn = random.Random(seed).sample(list(gold), min(count, len(gold)))
    return Batch("label", {row.id: row for row in asked}, {row.id: row for row in drawn})


def to_write(passages: Sequence[Passage]) -> Batch:
    """Passages to write questions on."""
    rows = [
        Row(
            question="",
            context=one.context,
            id=digest("crowd", one.context),
            document_id=one.document_id,
            context_id=one.context_id,
            fold=one.fold,
            source=one.source,
            url=one.url,
            title=one.title,
            heading=one.heading,
            licence=one.licence,
            retrieved_at=one.retrieved_at,
        )
        for one in passages
    ]
    return Batch("write", {row.id: row for row in rows}, {})


def save(batch: Batch, path: Path, seed: int) -> None:
    """Write the CSV, in an order that does not tell what is known, the page, and the key."""
    rows = [*batch.rows.values(), *batch.gold.values()]
    rows.sort(key=lambda row: row.id)
    random.Random(seed).shuffle(rows)
    fields = _FIELDS[batch.task]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="ascii") as file:
        writer = csv.writer(file)
        writer.writerow(fields)
        for row in rows:
            writer.writerow([_shown(getattr(row, field)) for field in fields])
    page = importlib.resources.files("curate.annotate.crowd") / f"{batch.task}.html"
    write_text(path.with_suffix(".html"), page.read_text(encoding="utf-8"))
    record.write_table(record.to_table(batch.rows.values()), _key(path, batch.task))
    record.write_table(record.to_table(batch.gold.values()), _gold(path))


def load(path: Path) -> Batch:
    """The batch that `save` wrote beside this CSV."""
    tasks: tuple[Task, ...] = ("label", "write")
    for task in tasks:
        if exists(_key(path, task)):
            rows, gold = record.read_rows(_key(path, task)), record.read_rows(_gold(path))
            return Batch(task, {row.id: row for row in rows}, {row.id: row for row in gold})
    raise UserError(
        f"{path}: no key beside it ({_key(path, 'label').name}); give the CSV that "
        "`curate annotate crowd export` wrote, in the folder where it was written"
    )


def _key(path: Path, task: Task) -> Path:
    return path.with_suffix(f".{task}.parquet")


def _gold(path: Path) -> Path:
    return path.with_suffix(".gold.parquet")


def _shown(text: str) -> str:
    """A text as the page shows it: HTML without anything but ASCII, on one line of the CSV.

    The site puts values into the page as they are, and takes no characters of four bytes.
    """
    escaped = html.escape(text).replace("\r", "").replace("\n", "&#10;").replace("$", "&#36;")
    return escaped.encode("ascii", "xmlcharrefreplace").decode("ascii")
