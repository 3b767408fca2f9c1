"""Stack Exchange: answers of its API as JSON, and ``Posts.xml`` of its public dumps.

A dump's answers stand far behind their questions and need not fit into memory: they are sorted in
a temporary file first.
"""

import contextlib
import functools
import sqlite3
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lxml import etree

from curate.errors import UserError, os_error
from curate.files import read_json
from curate.record import Row
from curate.sources import stream
from curate.sources.fields import get
from curate.sources.forum.thread import Reply, Thread, to_row
from curate.web.blocks import html_text

_get = functools.partial(get, form="Stack Exchange")
_QUESTION, _ANSWER = "1", "2"  # among a dump's PostTypeId
_SCHEMA = """
CREATE TABLE questions (id INTEGER PRIMARY KEY, accepted INTEGER, title, body, date, licence);
CREATE TABLE answers (id INTEGER PRIMARY KEY, question INTEGER, body, score REAL, date);
"""


def read(path: str, name: str, licence: str = "", base_url: str = "") -> Iterator[Row]:
    """Read rows, a question each, from ``Posts.xml``, a JSON file or a folder of JSON files.

    ``base_url`` is the site's address, which a dump does not tell.
    """
    file = Path(path)
    threads = _from_dump(file) if file.suffix == ".xml" else _from_api(file)
    for one in threads:
        one.url = one.url or (f"{base_url.rstrip('/')}/q/{one.identifier}" if base_url else "")
        yield to_row(one, name, licence).stamped()


def _from_dump(path: Path) -> Iterator[Thread]:
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(sqlite3.connect(Path(folder) / "posts.sqlite")) as posts,
    ):
        posts.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_SCHEMA}")
        for table, values in _posts(path):
            marks = ",".join("?" * len(values))
            posts.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", values)  # noqa: S608
        posts.execute("CREATE INDEX of_question ON answers (question)")
        yield from _threads(posts)


def _posts(path: Path) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Questions and answers of a dump, in its order; other kinds of post are passed over."""
    try:
        # Posts are attributes, at times long ones; entities of a stranger's XML are not followed.
        for _, row in etree.iterparse(
            str(path), tag="row", resolve_entities=False, no_network=True, huge_tree=True
        ):
            at = dict(row.attrib)
            row.clear()
            while row.getprevious() is not None:
                del row.getparent()[0]
            date = at.get("CreationDate", "")
            if at.get("PostTypeId") == _QUESTION:
                accepted, licence = at.get("AcceptedAnswerId"), at.get("ContentLicense", "")
                text = at.get("Title", ""), at.get("Body", "")
                yield "questions", (at["Id"], accepted, *text, date, licence)
            elif at.get("PostTypeId") == _ANSWER:
                values = at.get("ParentId"), at.get("Body", ""), at.get("Score", "0")
                yield "answers", (at["Id"], *values, date)
    except OSError as error:
        raise os_error("read", path, error) from error
    except etree.XMLSyntaxError as error:
        raise UserError(f"{path}: line {error.lineno}: not valid XML: {error.msg}") from error
    except KeyError as error:
        raise UserError(f"{path}: a row without {error}; is this Posts.xml of a dump?") from error


def _threads(posts: sqlite3.Connection) -> Iterator[Thread]:
    questions = posts.execute("SELECT * FROM questions ORDER BY id")
    for identifier, accepted, title, body, date, licence in questions:
        answers = posts.execute(
            "SELECT id, body, score, date FROM answers WHERE question=? ORDER BY id", (identifier,)
        )
        yield Thread(
            question=title,
            body=html_text(body),
            replies=[
                Reply(html_text(text), number == accepted, score, written)
                for number, text, score, written in answers
            ],
            identifier=str(identifier),
            licence=licence,
            published_at=date,
        )


def _from_api(path: Path) -> Iterator[Thread]:
    """Questions of saved responses, with answers inside them or in responses of their own."""
    questions: dict[int, tuple[str, dict[str, Any]]] = {}
    answers: dict[int, dict[int, dict[str, Any]]] = {}
    for file in stream.json_files(path):
        for number, item in enumerate(_get(read_json(file), "items", list, f"{file}: top level")):
            where = f"{file}: items[{number}]"
            question = _get(item, "question_id", int, where)
            if "answer_id" in item:
                answers.setdefault(question, {})[item["answer_id"]] = item
                continue
            questions[question] = where, item
            for answer in _get(item, "answers", list, where, default=[]):
                key = _get(answer, "answer_id", int, f"{where}.answers")
                answers.setdefault(question, {})[key] = answer
    for identifier, (where, item) in questions.items():
        accepted = item.get("accepted_answer_id")
        yield Thread(
            question=html_text(_get(item, "title", str, where)),  # the API escapes titles for HTML
            body=html_text(_get(item, "body", str, where, default="")),
            replies=[
                Reply(
                    html_text(_get(one, "body", str, f"{where}: answer {key}")),
                    bool(one.get("is_accepted")) or key == accepted,
                    float(one.get("score") or 0),
                    _date(one.get("creation_date")),
                )
                for key, one in sorted(answers.get(identifier, {}).items())
            ],
            identifier=str(identifier),
            url=_get(item, "link", str, where, default=""),
            licence=_get(item, "content_license", str, where, default=""),
            published_at=_date(item.get("creation_date")),
        )


def _date(seconds: Any) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if isinstance(seconds, int) else ""
