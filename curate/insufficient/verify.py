"""Checks of a derived row's label: does its context still hold the answer after all?"""

from curate.record import Row
from curate.text import holds_any

ANSWER_PRESENT = "answer_present"


def answer_present(context: str, answers: list[str]) -> float:
    """The answer-absence check as a vote that the context is sufficient: 1 or 0.

    Compares normalised words, with every accepted answer as an alias of the others. It cannot
    see paraphrases; a vote of 0 is necessary for an honest insufficient row, not proof of it.
    """
    return float(holds_any(context, answers))


def vote(row: Row, answers: list[str]) -> Row:
    """Write the check's vote into the row."""
    row.votes = {**row.votes, ANSWER_PRESENT: answer_present(row.context, answers)}
    return row
