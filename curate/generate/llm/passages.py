"""The passages to write questions on, and the questions that there are already."""

import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from curate import record
from curate.errors import UserError
from curate.record import Passage, Row

SHORTEST = 100  # characters; of less there is nothing to ask


@dataclass(frozen=True)
class Source:
    """A passage, where it comes from, and the rows that are about it already."""

    where: str
    passage: Passage
    known: tuple[Row, ...] = ()


def read(path: Path, limit: int | None = None) -> tuple[list[Source], int]:
    """The distinct passages of a file, in its order, and how many were too short to ask about.

    ``path`` is a file of passages, or one of rows, with the passages beside it; a data-set folder
    gives its passages. Raises `UserError` where there is nothing to write on.
    """
    if path.is_dir():
        path = path / "passages.parquet"
    rows: list[Row] = []
    passages: Iterable[Passage]
    columns = record.read_parquet(path).column_names
    if "question" in columns:
        rows = record.read_rows(path)
        passages = itertools.chain(map(_of_row, rows), record.read_passages_beside(path))
    else:
        passages = record.passages_from_table(record.read_table(path, record.PASSAGE_SCHEMA))
    known: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        known[row.context].append(row)
    every: dict[str, Passage] = {}
    for passage in passages:
        every.setdefault(passage.context, passage)
    first = {text: one for text, one in every.items() if len(text.strip()) >= SHORTEST}
    if not first:
        raise UserError(f"{path}: no passage of {SHORTEST} characters or more to write on")
    chosen = itertools.islice(first.items(), limit)
    sources = [
        Source(passage.url or passage.document_id or str(path), passage, tuple(known[context]))
        for context, passage in chosen
    ]
    return sources, len(every) - len(first)


def _of_row(row: Row) -> Passage:
    return Passage(
        context=row.context,
        document_id=row.document_id,
        context_id=row.context_id,
        fold=row.fold,
        title=row.title,
        heading=row.heading,
        source=row.source,
        url=row.url,
        licence=row.licence,
        retrieved_at=row.retrieved_at,
    )
