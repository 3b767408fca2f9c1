"""Cleaning: HTML remains, broken Unicode, white space, boilerplate; answers found again afterwards.

Row-wise: a row's fate depends on that row alone, so any engine may run it on any batch.
"""

import dataclasses
import functools
import html
import re
from collections import Counter
from collections.abc import Callable

import ftfy

from curate import language, spelling
from curate.recipe import CleanSettings
from curate.record import NOT_A_SPAN, Dropped, Row
from curate.text import content_words, holds_any, nearest, unique, words

STEP = "clean"
# A tag is a letter after "<": "x < 3 and y > 2" is mathematics.
_TAG = re.compile(r"</?[a-zA-Z][^<>]{0,2000}>|<!--.*?-->", re.DOTALL)
_BREAK = re.compile(r"<(?:br|/p|/div|/li|/tr|/h[1-6])\b[^<>]{0,200}>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:[a-zA-Z]{2,31}|#\d{1,7}|#x[0-9a-fA-F]{1,6});")
_SPACES = re.compile(r"[^\S\n]+")
_NEWLINES = re.compile(r" ?\n(?: ?\n)+ ?")
# An answer of these alone says nothing; "%" or "<" may be what was asked for.
_MARKS = re.compile(r"[\s.,;:!?…'\"“”‘’()\[\]{}·•_/\\|–—-]*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_INVISIBLE = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")
# Whole lines that belong to a page and not to its text.
_BOILERPLATE = re.compile(
    r"^[ \t]*(?:skip to (?:main )?content|all rights reserved\.?|(?:we|this site) uses? cookies.*"
    r"|accept (?:all )?cookies|cookie (?:policy|settings|preferences)|privacy policy|terms of "
    r"(?:use|service)|sign (?:in|up)|log in|subscribe(?: to our newsletter)?|share (?:this|on) .*"
    r"|back to top|table of contents|(?:©|\(c\)|copyright)\s.*\d{4}.*|was this (?:page|article) "
    r"helpful\??.*|edit this page.*|last updated:? .*|advertisement)[ \t]*$\n?",
    re.IGNORECASE | re.MULTILINE,
)


def _without_tags(text: str) -> str:
    return _TAG.sub("", _BREAK.sub("\n", text)) if "<" in text else text


def _without_entities(text: str) -> str:
    return html.unescape(text) if "&" in text and _ENTITY.search(text) else text


def _repaired(text: str) -> str:
    if text.isascii() and not _CONTROL.search(text):
        return text  # there is nothing that it could repair
    return ftfy.fix_text(text, uncurl_quotes=False, unescape_html=False)


def _folded(text: str) -> str:
    text = _SPACES.sub(" ", _INVISIBLE.sub("", text))
    return _NEWLINES.sub("\n\n", text).replace(" \n", "\n").replace("\n ", "\n").strip()


# In this order; what each has changed is counted under its name.
EDITS: dict[str, Callable[[str], str]] = {
    "html": _without_tags,
    "entities": _without_entities,
    "unicode": _repaired,
    "white_space": _folded,
}


def clean_text(text: str, edits: Counter[str] | None = None) -> str:
    """One text without HTML remains, with its Unicode repaired and its white space folded.

    Line breaks are kept, at most two in a row: they carry a passage's structure. ``edits`` counts
    what was done.
    """
    cleaned, done = _cleaned(text)
    if edits is not None:
        edits.update(done)
    return cleaned


@functools.lru_cache(maxsize=5_000)  # a context comes with each of its questions
def _cleaned(text: str) -> tuple[str, frozenset[str]]:
    """Repeated until nothing changes (`&amp;lt;` hides a tag behind two entities).

    So a text that was cleaned before stays as it is.
    """
    done: set[str] = set()
    while True:
        before = text
        for name, edit in EDITS.items():
            edited = edit(text)
            if edited != text:
                done.add(name)
            text = edited
        if text == before:
            return text, frozenset(done)


def clean_context(text: str, settings: CleanSettings, edits: Counter[str] | None = None) -> str:
    """A context, without lines of boilerplate too, where the settings say so."""
    text = clean_text(text, edits)
    if settings.boilerplate and (shorter := _BOILERPLATE.sub("", text)) != text:
        if edits is not None:
            edits["boilerplate"] += 1
        text = clean_text(shorter)
    return text


def clean(
    rows: list[Row], settings: CleanSettings, edits: Counter[str] | None = None
) -> tuple[list[Row], list[Dropped]]:
    """Clean each row, or say why it cannot be used; ``edits`` counts texts by what changed."""
    kept: list[Row] = []
    dropped: list[Dropped] = []
    counted: Counter[str] = Counter() if edits is None else edits
    for row in rows:
        result = _clean_row(row, settings, counted)
        (kept if isinstance(result, Row) else dropped).append(result)  # type: ignore[arg-type]
    return kept, dropped


def _clean_row(row: Row, settings: CleanSettings, edits: Counter[str]) -> Row | Dropped:
    # Length is judged first: repairing two megabytes of text only to drop it takes seconds.
    for name, text, limit in (
        ("context", row.context, settings.max_context_chars),
        ("question", row.question, settings.max_question_chars),
    ):
        if len(text) > limit:
            detail = f"{len(text):,} characters, at most {limit:,} (clean.max_{name}_chars)"
            return Dropped(row, STEP, f"{name}_too_long", detail)
    question = clean_text(row.question, edits)
    context = clean_context(row.context, settings, edits)
    is_english = settings.spelling and language.of(f"{question}\n{context}") in (None, "en")
    if is_english and (right := spelling.corrected(question, context)) != question:
        edits["spelling"] += 1
        question = right
    answers = _realign(row, context, settings)
    if objection := _objection(row, question, context, [a for a, _ in answers], settings):
        return Dropped(row, STEP, *objection)
    evidence = [
        span for start, end in row.evidence if (span := _moved(row, start, end, context, settings))
    ]
    return dataclasses.replace(
        row,
        question=question,
        context=context,
        answers=[answer for answer, _ in answers],
        answer_starts=[start for _, start in answers],
        evidence=evidence,
        content_hash="",
    ).stamped()


def _objection(
    row: Row, question: str, context: str, answers: list[str], settings: CleanSettings
) -> tuple[str, str] | None:
    """Why a cleaned row cannot be used, and what that turns on."""
    if not question:
        return "empty_question", ""
    if len(words(question)) < settings.min_question_words:
        return "question_too_short", question
    if not context and row.sufficient:
        return "empty_context", "labelled sufficient, but the context is empty"
    if row.sufficient and not answers:
        given = "; ".join(row.answers)[:200]
        return ("answer_not_found" if row.answers else "no_answer"), given
    if row.sufficient and all(_MARKS.fullmatch(answer) for answer in answers):
        return "empty_answer", "; ".join(answers)[:200]
    if settings.answer_in_question == "drop" and row.sufficient and _gives_away(question, answers):
        return "answer_in_question", "; ".join(answers)[:200]
    if settings.languages:
        found = language.of(f"{question}\n{context}")
        if found is not None and found not in settings.languages:
            return "other_language", f"{found}, and {', '.join(settings.languages)} asked for"
    return None


def _gives_away(question: str, answers: list[str]) -> bool:
    """Whether the question holds every accepted answer; one that offers a choice has to."""
    if " or " in question.casefold():
        return False
    return all(content_words(answer) and holds_any(question, [answer]) for answer in answers)


def _realign(row: Row, context: str, settings: CleanSettings) -> list[tuple[str, int]]:
    """The answers as they stand in the cleaned context, nearest to where they stood before."""
    found: list[tuple[str, int]] = []
    for answer, start in zip(row.answers, row.answer_starts, strict=True):
        cleaned = clean_text(answer)
        if start == NOT_A_SPAN:
            if cleaned:
                found.append((cleaned, NOT_A_SPAN))
            continue
        place = _place(row, start, cleaned, context, settings)
        if place >= 0:
            found.append((cleaned, place))
    return unique(found)


def _place(row: Row, start: int, cleaned: str, context: str, settings: CleanSettings) -> int:
    """Where a piece of the row's context stands in the cleaned one; −1 where it does not."""
    # What stands before it shrinks or grows in cleaning, and it moves along.
    if start > 0 and context != row.context:
        start = len(clean_context(row.context[:start], settings))
    return nearest(context, cleaned, max(start, 0))


def _moved(
    row: Row, start: int, end: int, context: str, settings: CleanSettings
) -> tuple[int, int] | None:
    cleaned = clean_text(row.context[start:end])
    place = _place(row, start, cleaned, context, settings)
    return (place, place + len(cleaned)) if place >= 0 else None
