"""Annotations as a table: one line for each that a person made, the row as it was sent included.

`curate annotate pull` writes it; agreement and adjudication read it. Nothing in it is left out:
an annotation that does not count says why not.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from curate import record
from curate.annotate.said import Said
from curate.errors import UserError
from curate.record import Row

Status = Literal["counts", "skipped", "superseded", "stale", "invalid", "deleted"]
COUNTS: Status = "counts"

_SAID = [
    ("annotator", pa.string()),
    ("annotated_at", pa.string()),
    ("lead_time", pa.float64()),
    ("status", pa.string()),
    ("detail", pa.string()),
    ("said_sufficient", pa.bool_()),
    ("said_answers", pa.list_(pa.string())),
    ("said_answer_starts", pa.list_(pa.int64())),
    ("said_reason", pa.string()),
    ("bad_question", pa.bool_()),
    ("comment", pa.string()),
    ("project_id", pa.int64()),
    ("task_id", pa.int64()),
    ("annotation_id", pa.int64()),
]
SCHEMA = pa.schema([*record.SCHEMA, *_SAID])


@dataclass(frozen=True)
class Annotation:
    """What a person said of a row, when, and in how many seconds.

    ``status`` tells whether it counts: they ``skipped`` the task, said something later
    (``superseded``), saw texts that are others now (``stale``), said what the labelling page does
    not offer (``invalid``), or somebody ``deleted`` it on the server. ``detail`` tells more.
    """

    row: Row
    annotator: str
    said: Said
    annotated_at: str  # ISO 8601, the server's clock
    lead_time: float | None  # seconds
    status: Status = COUNTS
    detail: str = ""
    project_id: int = 0
    task_id: int = 0
    annotation_id: int = 0


def write(annotations: Sequence[Annotation], path: Path) -> None:
    """Write them as Parquet, in one step."""
    rows = record.to_table([one.row for one in annotations])
    columns: list[list[object]] = [[] for _ in _SAID]
    for one in annotations:
        values = (
            one.annotator,
            one.annotated_at,
            one.lead_time,
            one.status,
            one.detail,
            one.said.sufficient,
            [text for text, _ in one.said.answers],
            [start for _, start in one.said.answers],
            one.said.reason,
            one.said.bad,
            one.said.comment,
            one.project_id,
            one.task_id,
            one.annotation_id,
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    said = [pa.array(column, kind) for column, (_, kind) in zip(columns, _SAID, strict=True)]
    record.write_table(pa.Table.from_arrays([*rows.columns, *said], schema=SCHEMA), path)


def read(path: Path) -> list[Annotation]:
    """Read what `write` wrote. Raises `UserError` where the file is of something else."""
    whole = record.read_parquet(path)
    if "annotator" not in whole.column_names:
        raise UserError(f"{path}: not a file of annotations; make one with `curate annotate pull`")
    table = record.read_table(path, SCHEMA)
    said = table.select([name for name, _ in _SAID]).to_pylist()
    rows = record.from_table(table)
    return [_annotation(row, values) for row, values in zip(rows, said, strict=True)]


def _annotation(row: Row, values: dict[str, Any]) -> Annotation:
    said = {
        "sufficient": values.pop("said_sufficient"),
        "reason": values.pop("said_reason"),
        "bad": values.pop("bad_question"),
        "comment": values.pop("comment"),
    }
    spans = zip(values.pop("said_answers"), values.pop("said_answer_starts"), strict=True)
    return Annotation(row=row, said=Said(answers=tuple(spans), **said), **values)


def counting(annotations: Iterable[Annotation]) -> list[Annotation]:
    """Those that count: one at most of each person and row."""
    return [one for one in annotations if one.status == COUNTS]


def rows_of(annotations: Iterable[Annotation]) -> dict[str, Row]:
    """The annotated rows, by id."""
    return {one.row.id: one.row for one in annotations}


def said_of(annotations: Iterable[Annotation]) -> dict[str, dict[str, Said]]:
    """By row and person what they say, of the annotations that count."""
    found: dict[str, dict[str, Said]] = defaultdict(dict)
    for one in counting(annotations):
        found[one.row.id][one.annotator] = one.said
    return found


def statuses(annotations: Iterable[Annotation]) -> dict[str, int]:
    """How many there are of each status."""
    return dict(sorted(Counter(one.status for one in annotations).items()))
