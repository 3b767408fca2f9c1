"""Whether a question that a model wrote is what it was asked for.

From cheap to dear, and the first fault ends it: what the texts tell, then a reader with the
passage and one without it, then a judge.
"""

import re

from curate.contract import Contract
from curate.generate.llm.asking import Model, Request
from curate.insufficient.made import READER_TOKENS
from curate.insufficient.readers import JUDGE_TOKENS, agree, judge_messages, verdict
from curate.record import Row
from curate.text import find_answer, holds_any, words

STEP = "llm"
_LONGEST_QUESTION, _LONGEST_ANSWER = 40, 40  # words
_CLOSED_BOOK = (
    "Answer the question from what you know, in a few words. If you cannot know it, reply: unknown"
    "\n\nQuestion: {question}"
)
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


async def fault_of_models(row: Row, reader: Model) -> Fault:
    """What a reader finds wrong with a row; its votes are kept with the row."""
    contract = Contract()
    asked = Request(contract.messages(row.context, row.question), READER_TOKENS)
    answer = await reader.ask(asked, str)
    abstains = not answer or contract.is_abstention(answer)
    vote = f"reader:{reader.model}"
    if not row.sufficient:
        row.votes[vote] = float(not abstains)
        if not abstains:
            return "reader_answers", answer[:200]
        judged = await reader.ask(
            Request(judge_messages(row.context, row.question), JUDGE_TOKENS), verdict
        )
        row.votes[f"judge:{reader.model}"] = judged
        return ("judge_finds_an_answer", "") if judged >= 0.5 else NONE
    row.votes[vote] = float(not abstains and agree(answer, row.answers))
    if abstains:
        return "reader_abstains", ""
    if not row.votes[vote]:
        return "reader_disagrees", answer[:200]
    closed = [{"role": "user", "content": _CLOSED_BOOK.format(question=row.question)}]
    known = await reader.ask(Request(closed, READER_TOKENS), str)
    if agree(known, row.answers):
        return "answered_without_passage", known[:200]
    return NONE
