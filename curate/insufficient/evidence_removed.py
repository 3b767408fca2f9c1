"""`evidence_removed`: the sentences that hold an accepted answer are cut from the context."""

import functools
import re
from typing import Any

from curate.record import NOT_A_SPAN, Row
from curate.text import holds_any

REASON = "evidence_missing"


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


def candidate(row: Row) -> tuple[str, float] | None:
    """The context without its evidence and the share of it that was cut.

    A sentence counts as evidence when it holds an accepted answer, or any part of a span that
    was annotated as one. None where nothing would be left, and where no evidence was found: an
    answer that is no span ("yes") rests on sentences that nobody has marked.
    """
    spans = [
        (start, start + len(answer))
        for answer, start in zip(row.answers, row.answer_starts, strict=True)
        if start != NOT_A_SPAN
    ]
    kept: list[str] = []
    for start, end in sentences(row.context):
        text = row.context[start:end]
        touches = any(a < end and start < b for a, b in spans)
        if not touches and not holds_any(text, row.answers):
            kept.append(text)
    context = "".join(kept).strip()
    if not context or len(context) == len(row.context.strip()):
        return None
    return context, 1 - len(context) / len(row.context)
