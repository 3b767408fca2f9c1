"""Tables: JSONL, a JSON list, CSV, Parquet or a hub data set, one question a row."""

import csv
import json
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.errors import UserError, os_error
from curate.files import parse_json, read_text
from curate.record import REASONS, Row, digest
from curate.sources import hub, multihop, stream
from curate.text import find_answer, fitting

FIELDS = (
    "question",
    "context",
    "answers",
    "answer_starts",
    "sufficient",
    "reason",
    "history",
    "document_id",
    "source_id",
    "url",
    "title",
    "heading",
    "licence",
    "language",
    "retrieved_at",
    "published_at",
)
_TRUE, _FALSE = {"true", "1", "yes", "y"}, {"false", "0", "no", "n"}


def read(
    path: str, name: str, licence: str = "", columns: dict[str, str] | None = None
) -> Iterator[Row]:
    """Read rows; ``columns`` maps our fields to the file's columns where their names differ.

    ``answers`` may be one text or a list of texts (in CSV: JSON, or one text). ``sufficient`` may
    be missing: then a row with answers counts as sufficient, and one without as not yet labelled.
    Contexts of several passages with supporting facts are read as HotpotQA and MuSiQue have them.
    Without ``document_id`` a context is a document (of MuSiQue, a question): a row's number would
    change, and its fold with it, when another row is put before it.
    """
    columns = columns or {}
    unknown = set(columns) - set(FIELDS)
    if unknown:
        raise UserError(
            f"{path}: no field {', '.join(sorted(unknown))}; fields: {', '.join(FIELDS)}"
        )
    for where, value in values(path):
        for theirs in columns.values():
            if theirs not in value:
                raise UserError(f"{where}: column '{theirs}' is missing; it has {', '.join(value)}")
        row = _row({**value, **{ours: value[theirs] for ours, theirs in columns.items()}}, where)
        row.source = name
        row.licence = row.licence or licence
        row.source_id = row.source_id or digest(row.question, row.context)
        row.document_id = f"{name}/{row.document_id or digest(row.context or row.question)}"
        yield row.stamped()


def values(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a table as it is, with a text that says where it stands."""
    if path.startswith("hub:"):
        return hub.rows(path)
    readers = {".jsonl": stream.lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
    file = Path(path)
    if file.suffix.lower() not in readers:
        raise UserError(f"{path}: a table must end in {', '.join(readers)}, or start with hub:")
    return readers[file.suffix.lower()](file)


def _json(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, item in stream.items(path, "", "table"):
        if not isinstance(item, dict):
            raise UserError(f"{where}: an object is needed")
        yield where, item


def _csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    csv.field_size_limit(sys.maxsize)  # a context too long to use is dropped by name, in cleaning
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for value in reader:
                if None in value:
                    raise UserError(f"{path}: line {reader.line_num}: more cells than columns")
                yield f"{path}: line {reader.line_num}", dict(value)
    except OSError as error:
        raise os_error("read", path, error) from error
    except UnicodeDecodeError:
        read_text(path)  # names the byte
        raise
    except csv.Error as error:
        line = reader.line_num + 1  # `line_num` is where the last whole record ended
        raise UserError(f"{path}: line {line}: not valid CSV: {error}") from error


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        with pq.ParquetFile(path) as file:
            index = 0
            for batch in file.iter_batches(1000):
                for value in batch.to_pylist():
                    yield f"{path}: row {index}", value
                    index += 1
    except OSError as error:
        raise os_error("read", path, error) from error
    except pa.ArrowInvalid as error:
        raise UserError(f"{path}: not a whole Parquet file: {error}") from error


def _row(value: dict[str, Any], where: str) -> Row:
    value, evidence = multihop.joined(value, where)
    question, context = _text(value, "question", where), _text(value, "context", where)
    if not question.strip():
        raise UserError(f"{where}: 'question' is missing or empty")
    answers = _answers(value.get("answers"), where)
    starts = _list(_given_starts(value), f"{where}: 'answer_starts'")
    if starts and len(starts) != len(answers):
        raise UserError(f"{where}: {len(answers)} 'answers' but {len(starts)} 'answer_starts'")
    sufficient = _label(value.get("sufficient"), where)
    if sufficient is None and answers:
        sufficient = True
    reason = _text(value, "reason", where) or ("unlabelled" if sufficient is False else "")
    if reason and reason not in REASONS:
        raise UserError(f"{where}: 'reason' is '{reason}', which is none of {', '.join(REASONS)}")
    return Row(
        question=question,
        context=context,
        history=_history(value.get("history"), where),
        answers=answers if sufficient else [],
        answer_starts=_starts(starts, answers, context, where) if sufficient else [],
        evidence=evidence if sufficient else [],
        sufficient=sufficient,
        reason=reason,
        document_id=_text(value, "document_id", where),
        source_id=_text(value, "source_id", where),
        url=_text(value, "url", where),
        title=_text(value, "title", where),
        heading=_text(value, "heading", where),
        licence=_text(value, "licence", where),
        language=_text(value, "language", where) or "en",
        retrieved_at=_time(value, "retrieved_at", where),
        published_at=_time(value, "published_at", where),
    )


def _answers(value: Any, where: str) -> list[str]:
    found = _list(value, f"{where}: 'answers'")
    if not all(isinstance(answer, str | int | float) for answer in found):
        raise UserError(f"{where}: 'answers' must be texts, found {found!r:.80}")
    return [str(answer) for answer in found]


def _given_starts(value: dict[str, Any]) -> Any:
    answers = value.get("answers")  # in SQuAD's flat form the offsets stand beside the texts
    flat = answers.get("answer_start") if isinstance(answers, dict) else None
    return value.get("answer_starts") if flat is None else flat


def _history(value: Any, where: str) -> list[dict[str, str]]:
    turns = _list(value, f"{where}: 'history'")
    for turn in turns:
        texts = [turn.get("role"), turn.get("content")] if isinstance(turn, dict) else [None]
        if not all(isinstance(text, str) for text in texts):
            raise UserError(
                f"{where}: 'history' must be a list of {{role, content}}, found {turn!r:.80}"
            )
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _starts(given: list[Any], answers: list[str], context: str, where: str) -> list[int]:
    """Offsets as given, or looked up; an answer in other words than the context's is no span."""
    if not given:
        return [find_answer(context, answer) for answer in answers]
    try:
        return [fitting(int(start), context) for start in given]
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"{where}: 'answer_starts' must be whole numbers, found {given!r}"
        ) from error


def _text(value: dict[str, Any], key: str, where: str) -> str:
    found = value.get(key)
    if found is None:
        return ""
    if not isinstance(found, str | int):
        raise UserError(f"{where}: '{key}' must be a text, found {found!r:.80}")
    return str(found)


def _list(value: Any, where: str) -> list[Any]:
    if value is None or value == "":
        return []
    if isinstance(value, str) and value.startswith("["):
        try:
            value = parse_json(value)
        except json.JSONDecodeError as error:
            raise UserError(f"{where} looks like a JSON list, but is none: {error.msg}") from error
    if isinstance(value, dict) and "text" in value:  # SQuAD's flat form on the hub
        value = value["text"]
    return list(value) if isinstance(value, list | tuple) else [value]


def _time(value: dict[str, Any], key: str, where: str) -> str:
    """A date as ISO 8601, since folds by time compare these as texts."""
    found = _text(value, key, where)
    try:
        return datetime.fromisoformat(found).isoformat() if found else ""
    except ValueError as error:
        raise UserError(
            f"{where}: '{key}' must be like 2026-01-31 or 2026-01-31T12:00, found '{found}'"
        ) from error


def _label(value: Any, where: str) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in _TRUE | _FALSE:
        return text in _TRUE
    if text in ("", "null", "none"):
        return None
    raise UserError(f"{where}: 'sufficient' must be true, false or empty, found {value!r}")
