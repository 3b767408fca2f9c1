"""TriviaQA (Joshi et al. 2017): trivia questions, and documents that may hold their answers.

The questions lie in ``qa/*.json``, the documents in ``evidence/wikipedia`` and ``evidence/web``
beside it. Nobody marked where an answer stands: a passage that holds one by its letters is taken to
answer (distant supervision), and its rows say so by their method.
"""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.errors import UserError, os_error
from curate.files import exists
from curate.record import NOT_A_SPAN, Row
from curate.sources import hub, stream
from curate.sources.fields import get
from curate.text import content_words, holds_any, words

_get = functools.partial(get, form="TriviaQA")
METHOD = "distant_supervision"
_PASSAGE_CHARS = 2_000
_FOLDERS = {"EntityPages": "wikipedia", "SearchResults": "web"}


def read(path: str, name: str, licence: str = "", evidence: str = "") -> Iterator[Row]:
    """Read rows from a file of ``qa/``, or from ``hub:NAME`` (its configuration with documents).

    A row for each document with a passage that holds the answer or an alias, preferably one that
    shares words with the question; a document that people verified (``DocPartOfVerifiedEval``)
    keeps the method ``human``. A question none of whose documents holds an answer gives one row
    with the nearest passage and a null label, and one without documents a row without a context.
    ``evidence`` is the folder of documents, where it is not beside ``qa/``.
    """
    if path.startswith("hub:"):
        found: Iterator[tuple[str, Any]] = ((w, _from_hub(v, w)) for w, v in hub.rows(path))
        folder = None
    else:
        found = stream.items(Path(path), "Data", "TriviaQA")
        folder = evidence_folder(path, evidence)
        if evidence and not exists(folder):
            raise UserError(f"there is no folder {folder}, which 'evidence' names")
    for where, value in found:
        for row in _rows(value, folder, where):
            row.source, row.licence = name, licence
            row.document_id = f"{name}/{row.document_id}"
            yield row.stamped()


def evidence_folder(path: str, evidence: str) -> Path:
    """Where the documents are: in the folder named, or beside the one that the questions lie in."""
    return Path(evidence) if evidence else Path(path).resolve().parent.parent / "evidence"


def _rows(value: Any, folder: Path | None, where: str) -> Iterator[Row]:
    answer = _get(value, "Answer", dict, where)
    known = [_get(answer, "Value", str, where), *_get(answer, "Aliases", list, where, default=[])]
    aliases = list(dict.fromkeys(str(alias) for alias in known))
    question = _get(value, "Question", str, where)
    identifier = _get(value, "QuestionId", str, where)
    nearest: tuple[int, Row] | None = None
    answered = False
    for kind, document in _documents(value, where):
        text = _document_text(document, folder, kind, where)
        passage, shared = _passage(text, question, aliases) if text else ("", 0)
        if not passage:
            continue
        place = _get(document, "Filename", str, where)
        row = Row(
            question=question,
            context=passage,
            source_id=f"{identifier}/{place}",
            document_id=place,
            title=_get(document, "Title", str, where, default=""),
            url=_get(document, "Url", str, where, default=""),
        )
        row.answers, row.answer_starts = _found(passage, aliases)
        if row.answers:
            answered = True
            row.sufficient, row.votes = True, {"answer_match": 1.0}
            row.method = "human" if document.get("DocPartOfVerifiedEval") else METHOD
            yield row
        elif nearest is None or shared > nearest[0]:
            nearest = shared, row
    if not answered:
        row = nearest[1] if nearest else Row(question=question, context="")
        row.source_id, row.document_id = identifier, row.document_id or identifier
        row.answers, row.answer_starts = aliases, [NOT_A_SPAN] * len(aliases)
        row.votes = {"answer_match": 0.0} if nearest else {}
        yield row


def _found(passage: str, aliases: list[str]) -> tuple[list[str], list[int]]:
    """The answers in a passage as spelt there, the longest first: one is often part of another."""
    found: dict[str, int] = {}
    for alias in sorted(aliases, key=len, reverse=True):
        literal = re.search(rf"(?<!\w){re.escape(alias)}(?!\w)", passage, re.IGNORECASE)
        if literal is not None and alias:
            found.setdefault(literal.group(), literal.start())
        elif holds_any(passage, [alias]):  # with other marks between its words
            found.setdefault(alias, NOT_A_SPAN)
    return list(found), list(found.values())


def _documents(value: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in _FOLDERS:
        for document in _get(value, kind, list, where, default=[]):
            yield kind, document


def _document_text(document: dict[str, Any], folder: Path | None, kind: str, where: str) -> str:
    """The document's text; the official sample comes without its files, and that is no error."""
    if folder is None:
        return str(document.get("Text") or "")
    name: str = _get(document, "Filename", str, where)
    path = (folder / _FOLDERS[kind] / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UserError(f"{where}: file '{name}' lies outside the evidence folder")
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise os_error("read", path, error) from error


def _passage(text: str, question: str, aliases: list[str]) -> tuple[str, int]:
    """The passage that holds an answer and shares most words with the question, and how many."""
    asked = content_words(question)
    best: tuple[bool, int, str] = (False, -1, "")
    for passage in _passages(text):
        shared = len(asked & set(words(passage)))
        rank = (holds_any(passage, aliases), shared)
        if rank > best[:2]:
            best = (*rank, passage)
    return best[2], best[1]


def _passages(text: str) -> Iterator[str]:
    """Neighbouring paragraphs, as many as fit; a longer one is cut at white space."""
    passage = ""
    for paragraph in filter(None, map(str.strip, text.splitlines())):
        while len(paragraph) > _PASSAGE_CHARS:
            cut = paragraph.rfind(" ", 1, _PASSAGE_CHARS)
            cut = cut if cut > 0 else _PASSAGE_CHARS
            if passage:
                yield passage
                passage = ""
            yield paragraph[:cut]
            paragraph = paragraph[cut:].strip()
        if passage and len(passage) + len(paragraph) > _PASSAGE_CHARS:
            yield passage
            passage = ""
        passage = f"{passage}\n{paragraph}" if passage else paragraph
    if passage:
        yield passage


def _from_hub(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The hub's form in the official names; its documents' texts stand in the row."""
    answer = _get(value, "answer", dict, where)
    pages = _columns(value.get("entity_pages"), "wiki_context")
    results = _columns(value.get("search_results"), "search_context")
    return {
        "Question": _get(value, "question", str, where),
        "QuestionId": _get(value, "question_id", str, where),
        "Answer": {"Value": answer.get("value") or "", "Aliases": answer.get("aliases") or []},
        "EntityPages": pages,
        "SearchResults": results,
    }


def _columns(found: Any, text: str) -> list[dict[str, Any]]:
    names = {"Filename": "filename", "Title": "title", "Url": "url", "Text": text}
    columns = {ours: found.get(theirs) for ours, theirs in names.items()} if found else {}
    present = {name: values for name, values in columns.items() if values}
    return [
        dict(zip(present, values, strict=True)) for values in zip(*present.values(), strict=True)
    ]
