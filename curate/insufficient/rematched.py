"""`rematched`: a question put to a passage near it that lacks the answer, and that fools a reader.

AGent (Tran et al. 2023) matches questions with similar passages and keeps those pairs on which
readers answer all the same: a pair that no reader falls for teaches little.
"""

from curate.insufficient.made import Made, World
from curate.record import Row
from curate.text import holds_any

METHOD, REASON = "rematched", "irrelevant_context"
TRIED = 5  # passages a question


def make(row: Row, world: World) -> Made | None:
    """The nearest passage on which the reader answers, and wrongly; intensity 1 / rank.

    None where it falls for none of the nearest.
    """
    for rank, context in enumerate(world.index.others(row, "same_document"), 1):
        if rank > TRIED:
            break
        if holds_any(context, row.answers):
            continue
        answer = world.read(row, context)
        # An answer that the passage does not hold is no misreading but a guess.
        if answer and holds_any(context, [answer]):
            return Made(REASON, 1 / rank, context, borrowed=[context])
    return None
