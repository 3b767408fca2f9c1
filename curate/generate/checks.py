"""What the texts alone tell of a question that someone wrote for a passage."""

import re

from curate.record import Row
from curate.text import find_answer, holds_any, words

_LONGEST_QUESTION, _LONGEST_ANSWER = 40, 40  # words
Fault = tuple[str, str]  # reason and detail, as `Dropped` has them
NONE: Fault = ("", "")


def span_of(context: str, answer: str) -> tuple[str, int] | None:
    """The answer as the passage has it, with its start; None where it does not stand there.

    Case and a final stop are the model's to get wrong.
    """
    for form in dict.fromkeys((answer, answer.rstrip(".!? "))):
        if not words(form):
            continue
        start = find_answer(context, form)
        if start >= 0:
            return form, start
        folded = re.search(rf"(?<!\w){re.escape(form)}(?!\w)", context, re.IGNORECASE)
        if folded:
            return folded.group(), folded.start()
    return None


def fault_of_text(row: Row) -> Fault:
    """What is wrong with a row as it stands, before any model is asked."""
    count = len(words(row.question))
    if not 2 <= count <= _LONGEST_QUESTION:
        return "no_question", f"{count} words"
    if re.search(r"\b(?:the|this) (?:passage|text|paragraph|context)\b", row.question, re.I):
        return "speaks_of_the_passage", ""
    if not row.sufficient:
        return NONE
    if not row.answers[0] or row.answer_starts[0] < 0:
        return "answer_not_in_passage", row.answers[0][:200]
    if len(words(row.answers[0])) > _LONGEST_ANSWER:
        return "answer_too_long", f"{len(words(row.answers[0]))} words"
    if holds_any(row.question, row.answers):
        return "answer_in_question", row.answers[0]
    return NONE
