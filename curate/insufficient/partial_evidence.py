"""`partial_evidence`: of several passages that only together answer, one is missing.

As MuSiQue's unanswerable half was made (Trivedi et al. 2022) from questions of several hops.
"""

import re

from curate.insufficient.evidence import spans
from curate.insufficient.made import Made, World
from curate.record import BETWEEN_PASSAGES, Row
from curate.text import holds_any

METHOD, REASON = "partial_evidence", "partial_evidence"


def applies(row: Row) -> bool:
    """Whether anyone has marked what the answer rests on."""
    return bool(row.evidence)


def make(row: Row, world: World) -> Made | None:
    """The context without one of its supporting passages; None with fewer than two of them.

    A passage that holds an answer goes first: without it there is nothing to guess from. The
    intensity is the share of the supporting passages that is missing.
    """
    passages = [match.span() for match in re.finditer(r"[^\n]+(?:\n[^\n]+)*", row.context)]
    supporting = [
        number
        for number, (start, end) in enumerate(passages)
        if any(a < end and start < b for a, b in spans(row))
    ]
    if len(supporting) < 2:
        return None
    holding = [n for n in supporting if holds_any(row.context[slice(*passages[n])], row.answers)]
    gone = world.random(METHOD, row).choice(holding or supporting)
    kept = [row.context[slice(*tile)] for n, tile in enumerate(passages) if n != gone]
    return Made(REASON, 1 / len(supporting), BETWEEN_PASSAGES.join(kept))
