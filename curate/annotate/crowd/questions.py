"""Rows of the questions that workers wrote on passages."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from curate.annotate.crowd.labels import STEP
from curate.annotate.crowd.results import Assignment
from curate.dedup import dedup
from curate.generate.checks import fault_of_text, span_of
from curate.record import NOT_A_SPAN, REASONS, Dropped, Row

METHOD = "crowd"


def questions(
    passages: Mapping[str, Row], assignments: Sequence[Assignment]
) -> tuple[list[Row], list[Dropped]]:
    """The questions with answers and without, once each, and those whose texts are not in order."""
    sound: list[Row] = []
    dropped: list[Dropped] = []
    for assignment in assignments:
        for row in _written(passages[assignment.task], assignment):
            fault, detail = fault_of_text(row)
            if fault:
                dropped.append(Dropped(row, STEP, fault, detail))
            else:
                sound.append(row)
    kept, same = dedup(sound)
    return kept, dropped + same


def _written(passage: Row, assignment: Assignment) -> Iterator[Row]:
    said = assignment.answers
    blank = dataclasses.replace(passage, id="", method=METHOD, source_id=assignment.id)
    if said.get("question"):
        answer = said.get("answer", "")
        text, start = span_of(passage.context, answer) or (answer, NOT_A_SPAN)
        yield dataclasses.replace(
            blank,
            question=said["question"],
            answers=[text],
            answer_starts=[start],
            sufficient=True,
        ).stamped()
    if said.get("unanswerable"):
        reason = said.get("reason", "")
        yield dataclasses.replace(
            blank,
            question=said["unanswerable"],
            sufficient=False,
            reason=reason if reason in REASONS else "unlabelled",
        ).stamped(1)
