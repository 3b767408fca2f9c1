"""The results of a batch, as Mechanical Turk gives them: a line an assignment."""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.errors import UserError
from curate.files import read_text

_NEEDED = ("AssignmentId", "WorkerId", "Input.id")


@dataclass(frozen=True)
class Assignment:
    """What one worker said of one task. ``answers`` are the fields of the page by name."""

    where: str
    id: str
    worker: str
    task: str
    status: str
    answers: dict[str, str]


def read(paths: Iterable[Path]) -> list[Assignment]:
    """The assignments of some files, each once, though it be in two of them."""
    found: dict[str, Assignment] = {}
    for path in paths:
        for assignment in _of_file(path):
            found[assignment.id] = assignment  # the later file has the later status
    return list(found.values())


def _of_file(path: Path) -> Iterator[Assignment]:
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        columns = reader.fieldnames or []
        missing = [name for name in _NEEDED if name not in columns]
        if missing or not any(name.startswith("Answer.") for name in columns):
            lacking = ", ".join(missing) or "Answer.…"
            raise UserError(
                f"{path}: no column {lacking}; a file of results is needed, as the site gives it "
                "(Manage, Results, Download CSV)"
            )
        for number, line in enumerate(reader, 2):
            where = f"{path}: line {number}"
            if None in line or None in line.values():
                raise UserError(f"{where}: not as many values as the header has")
            yield Assignment(
                where,
                line["AssignmentId"],
                line["WorkerId"],
                line["Input.id"].strip(),
                line.get("AssignmentStatus", "Submitted"),
                _answers(line, where),
            )
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not CSV ({error})") from error


def _answers(line: dict[str, str], where: str) -> dict[str, str]:
    """The page's fields: of ``Answer.taskAnswers``, or of a column each.

    A choice comes as its value, or as a true or false for each of its values.
    """
    answers: dict[str, str] = {}
    for column, value in line.items():
        _, is_answer, name = column.partition("Answer.")
        if not is_answer or not value:
            continue
        field, chosen, option = name.partition(".")
        if name == "taskAnswers":
            answers |= _of_json(value, where)
        elif not chosen:
            answers[name] = value.strip()
        elif value.casefold() == "true":
            answers[field] = option
    return answers


def _of_json(text: str, where: str) -> dict[str, str]:
    try:
        said: Any = json.loads(text)
        fields = [pair for form in said for pair in form.items()]
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{where}: Answer.taskAnswers is not what a page sends ({error})"
        ) from error
    answers: dict[str, str] = {}
    for name, value in fields:
        if isinstance(value, dict):
            chosen = [option for option, is_so in value.items() if is_so is True]
            answers |= {name: chosen[0]} if chosen else {}
        elif value is True:
            answers[name] = "on"
        elif isinstance(value, str) and value.strip():
            answers[name] = value.strip()
    return answers
