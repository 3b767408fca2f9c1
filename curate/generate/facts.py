"""Facts about subjects: a table with a subject a row, or keys and values under names."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import UserError
from curate.files import read_json
from curate.sources import table


@dataclass(frozen=True)
class Subject:
    """Something with a name, and what is known of it; None where the table has an empty cell."""

    name: str
    facts: dict[str, str | None]


def read(path: Path, subject: str = "") -> list[Subject]:
    """Read a CSV, JSONL or Parquet table, or a JSON object ``{name: {key: value}}``.

    ``subject`` is the column of the names, the first where it is empty. Names must be there, and
    each once: a question about one of two is a question about neither.
    """
    found = _objects(path) if path.suffix.lower() == ".json" else _table(path, subject)
    names: dict[str, str] = {}
    subjects: list[Subject] = []
    for where, name, facts in found:
        name = " ".join(name.split())
        if not name:
            raise UserError(f"{where}: the subject has no name; name its column with --subject")
        if name.casefold() in names:
            earlier = names[name.casefold()]
            raise UserError(f"{where}: subject '{name}' is there already ({earlier})")
        names[name.casefold()] = where
        subjects.append(Subject(name, facts))
    if not subjects:
        raise UserError(f"{path}: no subject in it")
    return subjects


def _table(path: Path, subject: str) -> list[tuple[str, str, dict[str, str | None]]]:
    found = []
    for where, value in table.values(str(path)):
        column = subject or next(iter(value))
        if column not in value:
            raise UserError(f"{where}: no column '{column}'; there are {', '.join(value)}")
        facts = {key: _text(one) for key, one in value.items() if key != column}
        found.append((where, _text(value[column]) or "", facts))
    return found


def _objects(path: Path) -> list[tuple[str, str, dict[str, str | None]]]:
    root = read_json(path)
    if isinstance(root, list):
        return _table(path, "")
    if not isinstance(root, dict) or not all(isinstance(one, dict) for one in root.values()):
        raise UserError(f'{path}: an object like {{"a name": {{"key": "value"}}}} is needed')
    return [
        (f"{path}: {name}", str(name), {str(key): _text(one) for key, one in facts.items()})
        for name, facts in root.items()
    ]


def _text(value: Any) -> str | None:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = " ".join(str(value).split()) if value is not None else ""
    return text or None
