"""Cleaning: HTML remains, broken Unicode, white space; answers found again afterwards.

Row-wise: a row's fate depends on that row alone, so any engine may run it on any batch.
"""

import dataclasses
import html
import re

import ftfy

from curate.recipe import CleanSettings
from curate.record import NOT_A_SPAN, Dropped, Row
from curate.text import nearest, unique

STEP = "clean"
# A tag is a letter after "<": "x < 3 and y > 2" is mathematics.
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,2000}>|<!--.*?-->", re.DOTALL)
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,31}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_SPACES = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r" ?\n(?: ?\n)+ ?")
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")


def clean_text(text: str) -> str:
    """One text without HTML remains, with its Unicode repaired and its white space folded.

    Line breaks are kept, at most two in a row: they carry a passage's structure. Cleaning is
    repeated until nothing changes (`&amp;lt;` hides a tag behind two entities), so that a text
    which was cleaned before stays as it is.
    """
    while (cleaner := _clean_once(text)) != text:
        text = cleaner
    return text


def _clean_once(text: str) -> str:
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub("\n", text))
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    text = ftfy.fix_text(text, uncurl_quotes=False, unescape_html=False)
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    return _NEWLINES.sub("\n\n", text).replace(" \n", "\n").replace("\n ", "\n").strip()


def clean(rows: list[Row], settings: CleanSettings) -> tuple[list[Row], list[Dropped]]:
    """Clean each row, or say why it cannot be used."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        result = _clean_row(row, settings)
        (kept if isinstance(result, Row) else dropped).append(result)  # type: ignore[arg-type]
    return kept, dropped


def _clean_row(row: Row, settings: CleanSettings) -> Row | Dropped:
    # Length is judged first: repairing two megabytes of text only to drop it takes seconds.
    for name, text, limit in (
        ("context", row.context, settings.max_context_chars),
        ("question", row.question, settings.max_question_chars),
    ):
        if len(text) > limit:
            detail = f"{len(text):,} characters, at most {limit:,} (clean.max_{name}_chars)"
            return Dropped(row, STEP, f"{name}_too_long", detail)
    question, context = clean_text(row.question), clean_text(row.context)
    if not question:
        return Dropped(row, STEP, "empty_question")
    if not context and row.sufficient:
        return Dropped(row, STEP, "empty_context", "labelled sufficient, but the context is empty")
    answers = _realign(row, context)
    evidence = [span for start, end in row.evidence if (span := _moved(row, start, end, context))]
    if row.sufficient and not answers:
        reason = "answer_not_found" if row.answers else "no_answer"
        return Dropped(row, STEP, reason, "; ".join(row.answers)[:200])
    return dataclasses.replace(
        row,
        question=question,
        context=context,
        answers=[answer for answer, _ in answers],
        answer_starts=[start for _, start in answers],
        evidence=evidence,
        content_hash="",
    ).stamped()


def _realign(row: Row, context: str) -> list[tuple[str, int]]:
    """The answers as they stand in the cleaned context, nearest to where they stood before."""
    found: list[tuple[str, int]] = []
    for answer, start in zip(row.answers, row.answer_starts, strict=True):
        cleaned = clean_text(answer)
        if start == NOT_A_SPAN:
            if cleaned:
                found.append((cleaned, NOT_A_SPAN))
            continue
        place = _place(row, start, cleaned, context)
        if place >= 0:
            found.append((cleaned, place))
    return unique(found)


def _place(row: Row, start: int, cleaned: str, context: str) -> int:
    """Where a piece of the row's context stands in the cleaned one; −1 where it does not."""
    # What stands before it shrinks or grows in cleaning, and it moves along.
    hint = len(clean_text(row.context[: max(start, 0)])) if start > 0 else 0
    return nearest(context, cleaned, hint)


def _moved(row: Row, start: int, end: int, context: str) -> tuple[int, int] | None:
    cleaned = clean_text(row.context[start:end])
    place = _place(row, start, cleaned, context)
    return (place, place + len(cleaned)) if place >= 0 else None
