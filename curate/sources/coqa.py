"""CoQA (Reddy, Chen, Manning 2019): stories, and questions that follow on one another."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.record import NOT_A_SPAN, Row
from curate.sources import hub, stream
from curate.sources.fields import get
from curate.sources.turns import Turns, turns
from curate.text import find_answer, normalise

_get = functools.partial(get, form="CoQA")


def read(path: str, name: str, licence: str = "") -> Iterator[Row]:
    """Read the official JSON, or ``hub:NAME``: a row a turn, the turns before it as its history.

    Answers are in people's own words, those of further annotators after the first; the sentence
    that the first rests on is the row's ``evidence``. "unknown" makes a row insufficient, and
    ``votes`` keep the share of people who found an answer.
    """
    stories: Iterator[tuple[str, Any]]
    if path.startswith("hub:"):
        stories = ((where, _from_hub(value, where)) for where, value in hub.rows(path))
    else:
        stories = stream.items(Path(path), "data", "CoQA")
    for where, story in stories:
        for row in _rows(story, where):
            row.source, row.licence = name, licence
            row.document_id = f"{name}/{row.document_id}"
            yield row.stamped()


def _rows(story: Any, where: str) -> Iterator[Row]:
    context = _get(story, "story", str, where)
    identifier = _get(story, "id", str, where)
    answers = _get(story, "answers", list, where)
    more = list(_get(story, "additional_answers", dict, where, default={}).values())
    history: Turns = []
    for number, question in enumerate(_get(story, "questions", list, where)):
        asked = _get(question, "input_text", str, f"{where}.questions[{number}]")
        given = [people[number] for people in (answers, *more) if number < len(people)]
        said = [_get(one, "input_text", str, f"{where}.answers[{number}]") for one in given]
        known = [text for text in said if not _unknown(text)]
        sufficient = not _unknown(said[0]) if said else None
        evidence = _span(given[0], context) if sufficient else []
        found = list(dict.fromkeys(known)) if sufficient else []
        yield Row(
            question=asked,
            context=context,
            history=list(history),
            answers=found,
            answer_starts=[_start(context, answer, evidence) for answer in found],
            evidence=evidence,
            sufficient=sufficient,
            reason="unlabelled" if sufficient is False else "",
            votes={"annotators": round(len(known) / len(said), 6)} if said else {},
            document_id=identifier,
            source_id=f"{identifier}/{number + 1}",
            title=_get(story, "filename", str, where, default=""),
        )
        history += turns(asked, said[0] if sufficient else "")


def _unknown(text: str) -> bool:
    return normalise(text) == "unknown"


def _span(answer: dict[str, Any], context: str) -> list[tuple[int, int]]:
    start, end = answer.get("span_start"), answer.get("span_end")
    if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end:
        return []
    return [(min(start, len(context)), min(end, len(context)))]


def _start(context: str, answer: str, evidence: list[tuple[int, int]]) -> int:
    """Where the answer stands in the sentence it rests on; −1 where it is in other words."""
    return next((find_answer(context, answer, *span) for span in evidence), NOT_A_SPAN)


def _from_hub(value: dict[str, Any], where: str) -> dict[str, Any]:
    """The hub's form in the official names: it has one annotator, and no identifiers."""
    answers = _get(value, "answers", dict, where)
    columns = zip(
        answers["input_text"], answers["answer_start"], answers["answer_end"], strict=True
    )
    return {
        "id": where,
        "story": _get(value, "story", str, where),
        "questions": [{"input_text": asked} for asked in _get(value, "questions", list, where)],
        "answers": [
            {"input_text": text, "span_start": start, "span_end": end}
            for text, start, end in columns
        ],
    }
