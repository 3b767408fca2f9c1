"""What kind of questions a data set is made of, and which rows it admits.

Both labels are held to the same form of question: if only answerable questions had to ask for a
name, the form alone would tell the label.
"""

import re
from collections.abc import Sequence

from curate.record import NOT_A_SPAN, Dropped, Row
from curate.text import normalise, words

STEP = "task"
_FACT_WORDS = 8
_YES_NO = re.compile(
    r"^(?:(?:and|but|so|or|then)\s+)?(?:am|is|are|was|were|do|does|did|has|have|had|can|could|will|"
    r"would|shall|should|may|might|must|isn't|aren't|wasn't|weren't|don't|doesn't|didn't|hasn't|"
    r"haven't|hadn't|can't|couldn't|won't|wouldn't|shouldn't)\b(?!.*\bor\b)",
    re.IGNORECASE,
)


def admit(rows: Sequence[Row], task: str) -> tuple[list[Row], list[Dropped]]:
    """The rows that a task admits, and the others with what they lack.

    ``open`` admits all. ``closed``: questions that yes or no answers. ``fact``: questions that do
    not, their best answer a few words of the context. ``conversational``: the turns of
    conversations, first turns too.
    """
    talks = {row.document_id for row in rows if row.history}
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        lacking = _lacking(row, task, talks)
        if lacking:
            dropped.append(Dropped(row, STEP, f"not_{task}", lacking))
        else:
            kept.append(row)
    return kept, dropped


def _lacking(row: Row, task: str, talks: set[str]) -> str:
    yes_or_no = _YES_NO.match(row.question.replace("\u2019", "'"))
    if task == "closed":
        if not yes_or_no:
            return "the question is not answered by yes or no"
        if row.answers and normalise(row.answers[0]) not in ("yes", "no"):
            return f"the answer is neither yes nor no: {row.answers[0][:80]}"
    if task == "fact":
        if yes_or_no:
            return "the question is answered by yes or no"
        if row.answers and row.answer_starts[0] == NOT_A_SPAN:
            return f"the answer is not of the context: {row.answers[0][:80]}"
        if row.answers and len(words(row.answers[0])) > _FACT_WORDS:
            return f"the answer has more than {_FACT_WORDS} words"
    if task == "conversational" and row.document_id not in talks:
        return "no turn of a conversation"
    return ""
