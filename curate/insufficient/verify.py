"""Checks of a derived row's label, from cheap to dear: each a vote that the context suffices.

A vote is a number from 0 (it does not) to 1 (it does), kept with the row under the check's name.
Those that cost nothing are cast here for every derived row; readers and a judge, which are models,
vote in `curate/insufficient/readers.py`. The recipe says which of them decide.
"""

from collections.abc import Callable, Sequence

from curate.insufficient.question_edits import is_supported
from curate.insufficient.readers import Panel
from curate.record import Row
from curate.text import content_words, holds_any, words
from curate.variants import holds_variant

ANSWER_PRESENT = "answer_present"
ANSWER_VARIANT = "answer_variant"
PREMISE_SUPPORTED = "premise_supported"


def answer_present(row: Row, parent: Row) -> float:
    """Whether an accepted answer stands in the context, word by word.

    It cannot see paraphrases: a 0 is necessary for an honest insufficient row, no proof of it
    (80.9 % accurate against human labels; Joren et al. 2025).
    """
    return float(holds_any(row.context, parent.answers))


def answer_variant(row: Row, parent: Row) -> float:
    """Whether one stands there in another form: inflected, in figures, as another date."""
    return float(holds_variant(row.context, parent.answers))


def premise_supported(row: Row, parent: Row) -> float:
    """Whether the context speaks of what an edit has put into the question."""
    before = set(words(parent.question))
    edit = " ".join(word for word in words(row.question) if word not in before)
    return float(bool(content_words(edit)) and is_supported(row.context, edit, row.question))


_CHECKS: dict[str, Callable[[Row, Row], float]] = {
    ANSWER_PRESENT: answer_present,
    ANSWER_VARIANT: answer_variant,
    PREMISE_SUPPORTED: premise_supported,
}


def checks_of(row: Row, parent: Row) -> Sequence[str]:
    """Those that apply: an edited question leaves the old answer every right to be there."""
    if row.sufficient:
        return (ANSWER_PRESENT,)
    if row.question != parent.question:
        return (PREMISE_SUPPORTED,)
    return (ANSWER_PRESENT, ANSWER_VARIANT)


def vote(row: Row, parent: Row, decisive: Sequence[str], panel: Panel) -> list[str]:
    """Cast votes into a derived row, from cheap to dear; the names of those that contradict it.

    The free checks are all cast; models are asked as long as no vote that decides has contradicted
    the label.
    """
    row.votes = {
        **row.votes,
        **{name: _CHECKS[name](row, parent) for name in checks_of(row, parent)},
    }
    against = disagreeing(row, decisive)
    if not against:
        for name, value in panel.votes(row, parent):
            row.votes[name] = value
            if against := disagreeing(row, decisive):
                break
    return against


def disagreeing(row: Row, decisive: Sequence[str]) -> list[str]:
    """Of the votes that decide, those that contradict the row's label.

    "reader" stands for all readers' votes, "reader:NAME" for one's.
    """
    return [
        name
        for name, value in sorted(row.votes.items())
        if {name, name.split(":")[0]} & set(decisive) and (value >= 0.5) != bool(row.sufficient)
    ]
