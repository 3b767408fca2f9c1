"""Sentences of a context, and which of them the answer rests on."""

import functools
import re

from curate.record import NOT_A_SPAN, Row
from curate.text import holds_any


@functools.lru_cache(maxsize=2_000)
def sentences(text: str) -> tuple[tuple[int, int], ...]:
    """Start and end of each sentence; line breaks end one, and together they are the whole text.

    White space belongs to the sentence before it (at the very start, to the one behind it).
    """
    from sentencex import get_sentence_boundaries

    starts = [0]
    for match in re.finditer(r"[^\n]+", text):
        line = match.group()
        here = match.start() + len(line) - len(line.lstrip())
        if here == match.end():
            continue
        for found in get_sentence_boundaries("en", text[here : match.end()]):
            start = here + found["start_index"]
            # What goes on in small letters was no end: "the firm Yahoo! is meant".
            if text[:start].strip() and (start == here or not text[start].islower()):
                starts.append(start)
    starts = sorted(set(starts))
    ends = [*starts[1:], len(text)]
    return tuple(zip(starts, ends, strict=True)) if text else ()


def spans(row: Row) -> list[tuple[int, int]]:
    """Start and end of what was annotated: the evidence, and the answers that are spans."""
    answers = [
        (start, start + len(answer))
        for answer, start in zip(row.answers, row.answer_starts, strict=True)
        if start != NOT_A_SPAN
    ]
    return [*((start, end) for start, end in row.evidence), *answers]


def is_evidence(row: Row, start: int, end: int) -> bool:
    """Whether a piece of the context holds an accepted answer, or part of an annotated span."""
    touches = any(a < end and start < b for a, b in spans(row))
    return touches or holds_any(row.context[start:end], row.answers)
