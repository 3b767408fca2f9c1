"""`distracted`: the twin of `noise_passages` that still suffices: the answer among distractors.

Without it, a model learns that several passages mean "unanswerable".
"""

from curate.insufficient.made import Made, World
from curate.insufficient.noise_passages import near_misses
from curate.record import BETWEEN_PASSAGES, NOT_A_SPAN, Row

METHOD, REASON = "distracted", ""


def make(row: Row, world: World) -> Made | None:
    """The row's own context at a random place among k − 1 near misses; intensity (k − 1) / k."""
    others = near_misses(row, world, world.count - 1)
    if len(others) < world.count - 1 or not row.context:
        return None
    random = world.random(METHOD, row)
    random.shuffle(others)
    place = random.randint(0, len(others))
    passages = [*others[:place], row.context, *others[place:]]
    offset = sum(len(passage) + len(BETWEEN_PASSAGES) for passage in passages[:place])
    answers = [
        (answer, start if start == NOT_A_SPAN else start + offset)
        for answer, start in zip(row.answers, row.answer_starts, strict=True)
    ]
    context = BETWEEN_PASSAGES.join(passages)
    return Made(REASON, len(others) / world.count, context, answers=answers, borrowed=others)
