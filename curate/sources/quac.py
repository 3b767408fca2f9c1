"""QuAC (Choi et al. 2018): a student asks about a section that only the teacher can read."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.record import Row
from curate.sources import hub, stream
from curate.sources.fields import get
from curate.sources.turns import Turns, turns
from curate.text import fitting

_get = functools.partial(get, form="QuAC")
_NO_ANSWER = "CANNOTANSWER"  # which also stands behind every context


def read(path: str, name: str, licence: str = "") -> Iterator[Row]:
    """Read the official JSON, or ``hub:NAME``: a row a turn, the turns before it as its history.

    Answers are spans, the teacher's first. Where the teacher could not answer the row is
    insufficient; ``votes`` keep the share of annotators who found an answer.
    """
    dialogues = _from_hub(path) if path.startswith("hub:") else _from_file(Path(path))
    for where, dialogue, title, section in dialogues:
        for row in _rows(dialogue, where):
            row.document_id = f"{name}/{title or row.document_id}"
            row.title, row.heading = title, section
            row.source, row.licence = name, licence
            yield row.stamped()


Dialogue = tuple[str, dict[str, Any], str, str]  # its place, itself, title and section


def _from_file(path: Path) -> Iterator[Dialogue]:
    for where, article in stream.items(path, "data", "QuAC"):
        title = _get(article, "title", str, where)
        section = _get(article, "section_title", str, where, default="")
        for number, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            yield f"{where}.paragraphs[{number}]", paragraph, title, section


def _from_hub(path: str) -> Iterator[Dialogue]:
    """The hub's form in the official names: a dialogue a row, with columns for its turns."""
    for where, value in hub.rows(path):
        given, first = (_get(value, key, dict, where) for key in ("answers", "orig_answers"))
        columns = (
            *(_get(value, "turn_ids", list, where), _get(value, "questions", list, where)),
            *(given["texts"], given["answer_starts"], first["texts"], first["answer_starts"]),
        )
        qas = [
            {
                "id": identifier,
                "question": question,
                "answers": [
                    {"text": text, "answer_start": start}
                    for text, start in zip(texts, starts, strict=True)
                ],
                "orig_answer": {"text": text, "answer_start": start},
            }
            for identifier, question, texts, starts, text, start in zip(*columns, strict=True)
        ]
        dialogue = {
            "context": _get(value, "context", str, where),
            "id": _get(value, "dialogue_id", str, where),
            "qas": qas,
        }
        title, section = (
            _get(value, key, str, where, default="")
            for key in ("wikipedia_page_title", "section_title")
        )
        yield where, dialogue, title, section


def _rows(dialogue: dict[str, Any], where: str) -> Iterator[Row]:
    context = _get(dialogue, "context", str, where).removesuffix(_NO_ANSWER).rstrip()
    history: Turns = []
    for number, turn in enumerate(_get(dialogue, "qas", list, where)):
        place = f"{where}.qas[{number}]"
        people = [_answer(one, place) for one in _get(turn, "answers", list, place)]
        original = _get(turn, "orig_answer", dict, place, default=None)
        said = [*([_answer(original, place)] if original else []), *people]
        sufficient = said[0][0] != _NO_ANSWER if said else None
        answers: dict[str, int] = {}
        for text, start in said if sufficient else []:
            if text != _NO_ANSWER:
                answers.setdefault(text, start)
        found = [text != _NO_ANSWER for text, _ in people or said]
        asked = _get(turn, "question", str, place)
        yield Row(
            question=asked,
            context=context,
            history=list(history),
            answers=list(answers),
            answer_starts=[fitting(start, context) for start in answers.values()],
            sufficient=sufficient,
            reason="unlabelled" if sufficient is False else "",
            votes={"annotators": round(sum(found) / len(found), 6)} if found else {},
            document_id=str(_get(dialogue, "id", (str, int), where)),
            source_id=str(_get(turn, "id", (str, int), place)),
        )
        history += turns(asked, said[0][0] if sufficient else "")


def _answer(value: Any, where: str) -> tuple[str, int]:
    return _get(value, "text", str, where), _get(value, "answer_start", int, where)
