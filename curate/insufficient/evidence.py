"""Sentences of a context, and which of them the answer rests on."""

import functools
import re
from typing import Any

from curate.record import NOT_A_SPAN, Row
from curate.text import holds_any


@functools.cache
def _segmenter() -> Any:
    import pysbd

    return pysbd.Segmenter(language="en", clean=False, char_span=False)


def _segment(line: str) -> list[str]:
    if not line:
        return []
    try:
        found: list[str] = _segmenter().segment(line)
    except ValueError:  # pysbd stumbles over some control characters, which cleaning takes out
        return [line]
    return found


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence; line breaks end one, and together they are the whole text.

    White space belongs to the sentence before it (at the very start, to the one behind it).
    """
    starts = [0]
    for match in re.finditer(r"[^\n]+", text):
        line = match.group()
        here = match.start() + len(line) - len(line.lstrip())
        for index, piece in enumerate(_segment(line.strip())):
            found = text.find(piece.strip(), here, match.end())
            if index == 0 and text[:here].strip():
                starts.append(here)
            elif index > 0 and piece.strip() and found > here:
                starts.append(found)  # a piece that the segmenter altered joins its neighbour
            here = max(here, found + len(piece.strip())) if found >= 0 else here
    ends = [*starts[1:], len(text)]
    return list(zip(starts, ends, strict=True)) if text else []


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
