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


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence, white space behind it included; line breaks end one."""
    spans: list[tuple[int, int]] = []
    start = 0
    for line in re.findall(r"[^\n]*\n*", text):
        if not line.strip():
            start += len(line)
            continue
        end_of_line = start + len(line)
        pieces = _segmenter().segment(line.rstrip("\n"))
        for index, piece in enumerate(pieces):
            found = text.find(piece.strip(), start, end_of_line)
            if found < 0:
                continue  # the segmenter altered this piece; it joins its neighbour
            is_last = index == len(pieces) - 1
            end = end_of_line if is_last else found + len(piece.rstrip())
            while end < end_of_line and text[end].isspace():
                end += 1
            spans.append((start, end))
            start = end
        if start < end_of_line:
            first = spans.pop()[0] if spans and spans[-1][1] == start else start
            spans.append((first, end_of_line))
        start = end_of_line
    return spans


def candidate(row: Row) -> tuple[str, float] | None:
    """The context without its evidence and the share of it that was cut; None if nothing is left.

    A sentence counts as evidence when it holds an accepted answer, or any part of a span that
    was annotated as one.
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
    if not context:
        return None
    return context, 1 - len(context) / len(row.context)
