"""`noise_passages`: what a retriever brings back when it misses: k passages, none with the answer.

The noise robustness and negative rejection of RGB (Chen et al. 2024).
"""

import itertools

from curate.insufficient.made import Made, World
from curate.record import BETWEEN_PASSAGES, Row
from curate.text import holds_any

METHOD, REASON = "noise_passages", "irrelevant_context"


def make(row: Row, world: World) -> Made | None:
    """The k nearest passages without an answer, in a random order; None where there are fewer."""
    found = near_misses(row, world, world.count)
    if len(found) < world.count:
        return None
    world.random(METHOD, row).shuffle(found)
    return Made(REASON, 1.0, BETWEEN_PASSAGES.join(found), borrowed=found)


def near_misses(row: Row, world: World, count: int) -> list[str]:
    """At most ``count`` passages near the question that hold no accepted answer, nearest first."""
    passages = world.index.others(row)
    without = (passage for passage in passages if not holds_any(passage, row.answers))
    return list(itertools.islice(without, count))
