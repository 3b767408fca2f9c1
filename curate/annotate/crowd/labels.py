"""What a batch's workers say of its rows."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from curate.annotate.crowd.results import Assignment
from curate.annotate.said import Said
from curate.generate.checks import span_of
from curate.record import NOT_A_SPAN, Row

STEP = "crowd"
_LABEL = {"yes": True, "no": False}


def said(rows: Mapping[str, Row], assignments: Iterable[Assignment]) -> dict[str, dict[str, Said]]:
    """By row and worker; answers are as the passage writes them, where it has them."""
    found: dict[str, dict[str, Said]] = defaultdict(dict)
    for one in assignments:
        found[one.task][one.worker] = judgement(one, rows[one.task].context)
    return found


def judgement(assignment: Assignment, context: str) -> Said:
    """One assignment's fields as a judgement."""
    fields = assignment.answers
    sufficient = _LABEL.get(fields.get("sufficient", ""))
    text = fields.get("answer", "")
    return Said(
        sufficient,
        (span_of(context, text) or (text, NOT_A_SPAN),) if sufficient and text else (),
        fields.get("reason", "") if sufficient is False else "",
        "bad" in fields,
        fields.get("comment", ""),
    )
