"""Natural Questions (Kwiatkowski et al. 2019): the original and the simplified JSONL, or the hub's.

Annotators saw a whole page, marked a long answer (a paragraph, a table, a list), and in it short
answers or yes or no. Several people looked at each question of the development set. As in the
official evaluation an answer is there where two of five found one; where one did, nobody knows.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.record import NOT_A_SPAN, Row
from curate.sources import hub, stream
from curate.sources.fields import get
from curate.text import content_words, words

_get = functools.partial(get, form="Natural Questions")
Span = tuple[int, int]  # first token, and the one behind the last


@dataclass
class _Annotation:
    """What one person found; a long answer of nobody is None."""

    long: Span | None
    short: list[Span]
    yes_no: str


@dataclass
class _Example:
    """A question with its page, however the file has it."""

    identifier: str
    question: str
    title: str
    url: str
    tokens: Sequence[str]
    is_html: Sequence[bool]
    candidates: list[Span]
    annotations: list[_Annotation]


def read(path: str, name: str, licence: str = "") -> Iterator[Row]:
    """Read rows from ``.jsonl`` or ``.jsonl.gz``, or from ``hub:NAME``, a question each.

    The context is the paragraph in which most people found the answer. Where nobody found one, the
    row is insufficient, its reason `unlabelled`, and its context the paragraph of the page that is
    nearest to the question: people saw it, and it did not help. ``votes`` keep the share of people
    who found an answer; where one of several did, the label is null.
    """
    if path.startswith("hub:"):
        examples = (_from_hub(value, where) for where, value in hub.rows(path))
    else:
        examples = (_from_line(value, where) for where, value in stream.lines(Path(path)))
    for example in examples:
        row = _row(example)
        row.source, row.licence = name, licence
        row.document_id = f"{name}/{example.title or example.url or example.identifier}"
        yield row.stamped()


def _from_line(value: dict[str, Any], where: str) -> _Example:
    if "document_tokens" in value:
        tokens = _get(value, "document_tokens", list, where)
        texts = [_get(token, "token", str, f"{where}: document_tokens") for token in tokens]
        is_html = [_get(token, "html_token", bool, f"{where}: document_tokens") for token in tokens]
    else:  # simplified: the tokens joined by spaces, tags among them
        texts = _get(value, "document_text", str, where).split(" ")
        is_html = [bool(_TAG.fullmatch(text)) for text in texts]
    return _Example(
        identifier=str(_get(value, "example_id", (int, str), where)),
        question=_get(value, "question_text", str, where),
        title=_get(value, "document_title", str, where, default=""),
        url=_get(value, "document_url", str, where, default=""),
        tokens=texts,
        is_html=is_html,
        candidates=[
            (_get(one, "start_token", int, where), _get(one, "end_token", int, where))
            for one in _get(value, "long_answer_candidates", list, where)
            if _get(one, "top_level", bool, where, default=True)
        ],
        annotations=[
            _annotation(one, f"{where}: annotations[{number}]")
            for number, one in enumerate(_get(value, "annotations", list, where))
        ],
    )


_TAG = re.compile(r"</?[A-Za-z][^<>]*>")


def _annotation(value: Any, where: str) -> _Annotation:
    found = _get(value, "long_answer", dict, where)
    long = (_get(found, "start_token", int, where), _get(found, "end_token", int, where))
    short = [
        (_get(one, "start_token", int, where), _get(one, "end_token", int, where))
        for one in _get(value, "short_answers", list, where)
    ]
    yes_no = _get(value, "yes_no_answer", str, where, default="NONE").lower()
    return _Annotation(long if long[0] >= 0 else None, short, yes_no if yes_no != "none" else "")


def _from_hub(value: dict[str, Any], where: str) -> _Example:
    """The hub's form: the same, with columns for lists and numbers for yes and no."""
    document = _get(value, "document", dict, where)
    tokens = _get(document, "tokens", dict, where)
    candidates = _get(value, "long_answer_candidates", dict, where)
    notes = _get(value, "annotations", dict, where)
    annotations = []
    for long, short, yes_no in zip(
        notes["long_answer"], notes["short_answers"], notes["yes_no_answer"], strict=True
    ):
        span = (int(long["start_token"]), int(long["end_token"]))
        shorts = list(zip(short["start_token"], short["end_token"], strict=True))
        said = {0: "no", 1: "yes", "NO": "no", "YES": "yes"}.get(yes_no, "")
        annotations.append(_Annotation(span if span[0] >= 0 else None, shorts, said))
    spans = zip(candidates["start_token"], candidates["end_token"], strict=True)
    return _Example(
        identifier=str(_get(value, "id", (int, str), where)),
        question=_get(_get(value, "question", dict, where), "text", str, where),
        title=_get(document, "title", str, where, default=""),
        url=_get(document, "url", str, where, default=""),
        tokens=tokens["token"],
        is_html=[bool(one) for one in tokens["is_html"]],
        candidates=[span for span, top in zip(spans, candidates["top_level"], strict=True) if top],
        annotations=annotations,
    )


def _row(example: _Example) -> Row:
    found = [one for one in example.annotations if one.long is not None]
    people = len(example.annotations)
    if len(found) >= min(2, people) and found:
        sufficient: bool | None = True
    else:
        sufficient = None if found or not people else False
    row = Row(
        question=example.question,
        context="",
        sufficient=sufficient,
        reason="" if sufficient is not False else "unlabelled",
        votes={"annotators": round(len(found) / people, 6)} if people else {},
        source_id=example.identifier,
        title=example.title,
        url=example.url,
    )
    if not found:
        row.context = _nearest(example)
        if sufficient is False and not row.context:
            row.reason = "no_context"
        return row
    # Of the passages that people marked, the one that most did, the first of several.
    (span, _), *_ = Counter(one.long for one in found if one.long).most_common(1)
    row.context, starts = _text(example, span)
    answers = [answer for one in found if one.long == span for answer in _answers(one)]
    for answer in [one for one, _ in Counter(answers).most_common()] or [span]:
        text, start = _said(answer, span, row.context, starts)
        if text and text not in row.answers:
            row.answers.append(text)
            row.answer_starts.append(start)
    return row


def _answers(annotation: _Annotation) -> list[Span | str]:
    return [annotation.yes_no] if annotation.yes_no else list(annotation.short)


def _said(answer: Span | str, span: Span, context: str, starts: dict[int, Span]) -> tuple[str, int]:
    """An answer's text and where it stands; a span's tokens may all be tags, and say nothing."""
    if isinstance(answer, str):
        return answer, NOT_A_SPAN
    if answer == span:
        return context, 0
    inside = [starts[token] for token in range(*answer) if token in starts]
    if not inside:
        return "", NOT_A_SPAN
    start, end = inside[0][0], inside[-1][1]
    return context[start:end], start


_BREAKS = re.compile(r"</?(?:p|li|ul|ol|tr|table|dl|dt|dd|h[1-6]|div|br)\b", re.I)
_CELL = re.compile(r"<t[dh](?![a-z])", re.I)  # simplified tags have underscores for spaces
_QUOTES = {"``": "\u201c", "''": "\u201d"}
_NO_SPACE_BEFORE = re.compile(
    r"[.,;:!?%)\]}\u201d\u2019]|'s$|n't$|'(?:re|ve|ll|d|m)$", re.IGNORECASE
)
_NO_SPACE_AFTER = frozenset("([{$\u00a3\u20ac\u201c\u2018")


def _text(example: _Example, span: Span) -> tuple[str, dict[int, Span]]:
    """A passage as people write it, and where each of its tokens stands.

    Blocks begin lines, cells of a table are parted by bars, and the spaces that tokenising put
    before marks are gone.
    """
    text = ""
    starts: dict[int, Span] = {}
    between = ""
    for number in range(max(0, span[0]), min(span[1], len(example.tokens))):
        token = example.tokens[number]
        if example.is_html[number]:
            if _BREAKS.match(token):
                between = "\n"
            elif _CELL.match(token) and between != "\n":
                between = " | "
            continue
        token = _QUOTES.get(token, token)
        glued = _NO_SPACE_BEFORE.match(token) or (text and text[-1] in _NO_SPACE_AFTER)
        text += (between or ("" if glued else " ")) if text else ""
        starts[number] = (len(text), len(text) + len(token))
        text += token
        between = ""
    return text, starts


def _nearest(example: _Example) -> str:
    """The passage of the page that shares most with the question, rare words before frequent."""
    texts = [_text(example, span)[0] for span in example.candidates]
    holds = [frozenset(words(text)) for text in texts]
    frequency = Counter(word for one in holds for word in one)
    asked = content_words(example.question)

    def shared(number: int) -> tuple[float, int]:
        weight = sum(math.log(1 + len(texts) / frequency[word]) for word in asked & holds[number])
        return weight, -len(texts[number])

    return texts[max(range(len(texts)), key=shared)] if texts else ""
