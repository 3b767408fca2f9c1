"""Which rows people see first."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from curate.annotate.label_studio.predictions import Guess, probability, votes_of
from curate.audit.labels import kind
from curate.record import Row, digest

First = Literal["disagreement", "margin", "random"]


def choose(
    rows: Sequence[Row], first: First, run: Mapping[str, Guess], seed: int, limit: int | None
) -> list[Row]:
    """The rows to send, the most telling first.

    ``disagreement``: those on which verifiers differ most. ``margin``: those whose P(sufficient)
    is nearest to a half (uncertainty sampling; Lewis and Gale 1994). ``random``: a sample
    stratified by method and label, the one to measure with. Ties are drawn by ``seed``.
    """
    drawn = sorted(rows, key=lambda row: digest(str(seed), row.id))
    if first == "random":
        return _in_turn(drawn)[:limit]
    telling = _disagreement if first == "disagreement" else _margin(run)
    return sorted(drawn, key=telling)[:limit]


def _disagreement(row: Row) -> float:
    """Minus the variance of the votes."""
    votes = votes_of(row)
    if not votes:
        return 0.0
    mean = sum(votes) / len(votes)
    return -sum((vote - mean) ** 2 for vote in votes) / len(votes)


def _margin(run: Mapping[str, Guess]) -> Callable[[Row], float]:
    def margin(row: Row) -> float:
        p = probability(row, run)
        return math.inf if p is None else abs(p - 0.5)

    return margin


def _in_turn(rows: Sequence[Row]) -> list[Row]:
    """One of each kind after the other, so that the first n are as even as can be."""
    kinds: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        kinds[kind(row)].append(row)
    turns = [
        (turn, name, row) for name, members in kinds.items() for turn, row in enumerate(members)
    ]
    return [row for _, _, row in sorted(turns, key=lambda one: one[:2])]


def overlap_first(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """A drawn share of the rows before the others, each part in its own order.

    The server has the first tasks judged by several: were they the hardest, agreement would be
    measured on those alone.
    """
    count = round(share * len(rows))
    drawn = sorted(rows, key=lambda row: digest(str(seed), "overlap", row.id))[:count]
    several = {row.id for row in drawn}
    return sorted(rows, key=lambda row: row.id not in several)
