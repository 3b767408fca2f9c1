"""The record: one row, one question. Its Arrow schema, its hashes, and Parquet in and out."""

import dataclasses
import hashlib
import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from curate.errors import UserError, os_error
from curate.files import exists, replacing

REASONS = (
    "unlabelled",
    "no_context",
    "irrelevant_context",
    "evidence_missing",
    "partial_evidence",
    "false_premise",
    "underspecified",
    "conflicting_context",
    "out_of_scope",
)
FOLDS = ("train", "validation", "calibration", "test", "stream")
NOT_A_SPAN = -1
_BATCH = 1_000  # rows that are in memory at once, where a source is only copied
BETWEEN_PASSAGES = "\n\n"  # in a context that is made of several


@dataclass(slots=True)
class Row:
    """One question about one context; the fields are those of ``shared/design.md``.

    ``sufficient`` is the label: does the context hold the answer? ``None`` means that nobody
    has said yet, and such a row is never written into a split. ``answer_starts`` are character
    offsets into ``context``, one for each of ``answers``, `NOT_A_SPAN` where it is no span.
    ``evidence`` are the spans, start and end, that the answer rests on, where someone marked them.
    ``votes`` say that the context suffices: a verifier's, or the source's own (a forum's score, the
    share of annotators who found an answer). ``title`` and ``heading`` (its path, ``›`` between)
    are where in its page a row stands; ``published_at`` is the source's date, not ours. ``weight``
    is how many questions a row stands for, where a sample took some kinds sooner than others.
    """

    question: str
    context: str
    id: str = ""
    content_hash: str = ""
    history: list[dict[str, str]] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    answer_starts: list[int] = field(default_factory=list)
    evidence: list[tuple[int, int]] = field(default_factory=list)
    sufficient: bool | None = None
    reason: str = ""
    method: str = "human"
    intensity: float = 0.0
    votes: dict[str, float] = field(default_factory=dict)
    parent_id: str = ""
    document_id: str = ""
    context_id: str = ""
    fold: str = ""
    source: str = ""
    source_id: str = ""
    url: str = ""
    title: str = ""
    heading: str = ""
    licence: str = ""
    language: str = "en"
    retrieved_at: str = ""
    published_at: str = ""
    weight: float = 1.0

    def stamped(self, ordinal: int = 0) -> "Row":
        """The same row with ``id`` (where it came from) and ``content_hash`` (what it says).

        ``ordinal`` tells apart rows that share source, source_id, method and parent.
        """
        identity = (self.source, self.source_id, self.method, self.parent_id, str(ordinal))
        return dataclasses.replace(
            self, id=self.id or digest(*identity), content_hash=self.current_content_hash()
        )

    def current_content_hash(self) -> str:
        """Hash of texts, answers and label: changes when someone corrects the row."""
        turns = [text for turn in self.history for text in (turn["role"], turn["content"])]
        label = (str(self.sufficient), self.reason)
        return digest(self.question, self.context, *turns, "\x1e", *self.answers, "\x1e", *label)


@dataclass(slots=True)
class Passage:
    """A context without questions: material to borrow from when a context must not answer."""

    context: str
    document_id: str = ""
    context_id: str = ""
    fold: str = ""
    title: str = ""
    heading: str = ""
    source: str = ""
    url: str = ""
    licence: str = ""
    retrieved_at: str = ""


@dataclass(slots=True)
class Dropped:
    """A row that was left out, the step that did it, and the reason, with what it turned on."""

    row: Row
    step: str
    drop_reason: str
    detail: str = ""


# Votes are a list of pairs and not an Arrow map, because `datasets` cannot read maps.
_NAMED = {
    "history": pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())])),
    "votes": pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())])),
    "answers": pa.list_(pa.string()),
    "answer_starts": pa.list_(pa.int64()),
    "evidence": pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64())])),
    "sufficient": pa.bool_(),
    "intensity": pa.float64(),
    "weight": pa.float64(),
}


def _schema(record: type, extra: Sequence[str] = ()) -> pa.Schema:
    names = [f.name for f in dataclasses.fields(record)] + list(extra)
    return pa.schema([(name, _NAMED.get(name, pa.string())) for name in names])


SCHEMA = _schema(Row)
PASSAGE_SCHEMA = _schema(Passage)
_WHY = ("step", "drop_reason", "detail")
_LATER: dict[str, Any] = {  # than the first files, and what stands in for each there
    "evidence": [],
    "title": "",
    "heading": "",
    "retrieved_at": "",
    "published_at": "",
    "weight": 1.0,
}
DROPPED_SCHEMA = _schema(Row, _WHY)


def digest(*parts: str) -> str:
    """A 20-digit hexadecimal hash of some texts; the unit separator keeps them apart."""
    return hashlib.sha256("\x1f".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:20]


def rows_digest(rows: Iterable["Row"]) -> str:
    """What tells these rows, in this order, from others."""
    return digest(*(f"{row.id}{row.content_hash}{row.weight!r}" for row in rows))


def _column(name: str, rows: Sequence[Any]) -> pa.Array:
    """One field of all rows; columns are several times as fast as a dictionary a row."""
    values = [getattr(row, name) for row in rows]
    if name == "votes":
        values = [[{"name": n, "value": v} for n, v in sorted(votes.items())] for votes in values]
    if name == "evidence":
        values = [[{"start": start, "end": end} for start, end in spans] for spans in values]
    return pa.array(values, type=_NAMED.get(name, pa.string()))


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    if column.type == pa.string():
        # Rows that say the same share one text: of contexts, sources and dates there are few.
        known: dict[str | None, str | None] = {}
        return [known.setdefault(text, text) for text in column.to_pylist()]
    values: list[Any] = column.to_pylist()
    if name == "votes":
        return [{vote["name"]: vote["value"] for vote in votes} for votes in values]
    if name == "evidence":
        return [[(span["start"], span["end"]) for span in spans] for spans in values]
    return values


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as an Arrow table of `SCHEMA`."""
    rows = list(rows)
    return pa.Table.from_arrays([_column(name, rows) for name in SCHEMA.names], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Row]:
    """An Arrow table of `SCHEMA` as rows."""
    columns = [_values(name, table.column(name)) for name in SCHEMA.names]
    return [Row(*values) for values in zip(*columns, strict=True)]


def dropped_to_table(dropped: Iterable[Dropped]) -> pa.Table:
    """Dropped rows as an Arrow table: the row's own columns, then step, reason and detail."""
    dropped = list(dropped)
    rows = [one.row for one in dropped]
    columns = [_column(name, rows) for name in SCHEMA.names]
    columns += [_column(name, dropped) for name in _WHY]
    return pa.Table.from_arrays(columns, schema=DROPPED_SCHEMA)


def dropped_from_table(table: pa.Table) -> list[Dropped]:
    """An Arrow table of `DROPPED_SCHEMA` as dropped rows."""
    why = zip(*(table.column(name).to_pylist() for name in _WHY), strict=True)
    return [Dropped(row, *said) for row, said in zip(from_table(table), why, strict=True)]


def passages_beside(path: Path) -> Path:
    """Where the passages of a file of rows lie."""
    return path.with_suffix(".passages.parquet")


def read_passages_beside(path: Path) -> list[Passage]:
    """The passages of a file of rows; none where there is no such file beside it."""
    beside = passages_beside(path)
    if not (path.is_file() and exists(beside)):
        return []
    return passages_from_table(read_table(beside, PASSAGE_SCHEMA))


def passages_to_table(passages: Iterable[Passage]) -> pa.Table:
    """Passages as an Arrow table of `PASSAGE_SCHEMA`."""
    return pa.Table.from_pylist([dataclasses.asdict(p) for p in passages], schema=PASSAGE_SCHEMA)


def passages_from_table(table: pa.Table) -> list[Passage]:
    """An Arrow table of `PASSAGE_SCHEMA` as passages."""
    return [Passage(**value) for value in table.to_pylist()]


def write_table(table: pa.Table, path: Path) -> None:
    """Write Parquet atomically; the same table always gives the same bytes."""
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_rows(rows: Iterable[Row], path: Path) -> Counter[str]:
    """Write rows as they come, a batch at a time; returns how many have which label."""
    labels: Counter[str] = Counter()
    names = {True: "sufficient", False: "insufficient", None: "unlabelled"}
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, SCHEMA, compression="zstd") as file,
        tqdm(desc="rows", unit="row") as bar,
    ):
        rows = iter(rows)
        while batch := list(itertools.islice(rows, _BATCH)):
            file.write_table(to_table(batch))
            labels.update(names[row.sufficient] for row in batch)
            bar.update(len(batch))
    return labels


def read_parquet(path: Path) -> pa.Table:
    """Read Parquet; what is wrong with the file is told by name."""
    try:
        return pq.read_table(path)
    except OSError as error:
        raise os_error("read", path, error) from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a whole Parquet file ({error}); make it again") from error


def read_table(path: Path, schema: pa.Schema = SCHEMA) -> pa.Table:
    """Read Parquet and check it against ``schema``: every mismatch names the file and column."""
    table = read_parquet(path)
    for name in _LATER.keys() & set(schema.names) - set(table.column_names):
        # Files of before there was this column are read as they are.
        nothing = pa.array([_LATER[name]] * len(table), schema.field(name).type)
        table = table.append_column(name, nothing)
    for name in schema.names:
        if name not in table.column_names:
            raise UserError(
                f"{path}: column '{name}' is missing; it is not a file of rows that "
                f"`curate` wrote (import foreign tables with `curate import table`)"
            )
        found, wanted = table.schema.field(name).type, schema.field(name).type
        if not _fits(found, wanted):
            raise UserError(f"{path}: column '{name}' holds {found}, and {wanted} is needed")
    return table.select(schema.names).cast(schema)


def _fits(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column's type is the one wanted, or what pandas makes of it.

    It writes texts as ``large_string``, and lists that are all empty as lists of null.
    """
    if pa.types.is_list(wanted) and (pa.types.is_list(found) or pa.types.is_large_list(found)):
        return pa.types.is_null(found.value_type) or _fits(found.value_type, wanted.value_type)
    if pa.types.is_struct(wanted) and pa.types.is_struct(found):
        same = [field.name for field in found] == [field.name for field in wanted]
        return same and all(_fits(f.type, w.type) for f, w in zip(found, wanted, strict=True))
    return bool(found == wanted) or (pa.types.is_string(wanted) and pa.types.is_large_string(found))


def read_rows(path: Path) -> list[Row]:
    """Read a Parquet file of rows, or every split of a data-set folder, in the folds' order."""
    if path.is_dir():
        return [row for rows in read_splits(path).values() for row in rows]
    return from_table(read_table(path))


def read_splits(folder: Path) -> dict[str, list[Row]]:
    """The splits that a data-set folder has, by name."""
    found = [fold for fold in FOLDS if (folder / f"{fold}.parquet").exists()]
    if not found:
        raise UserError(
            f"{folder}: no train.parquet, validation.parquet, … in this folder; "
            f"build it first: curate build RECIPE.yaml --out {folder}"
        )
    return {fold: read_fold(folder, fold) for fold in found}


def read_fold(folder: Path, fold: str) -> list[Row]:
    """Read one split of a data-set folder; an empty split is an empty list, a missing one not."""
    return from_table(read_table(folder / f"{fold}.parquet"))
