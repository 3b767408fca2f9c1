"""Worked examples for a few-shot prompt, drawn from the train split."""

import random
from collections.abc import Sequence
from statistics import median

from curate.contract import Contract, Shot
from curate.errors import UserError
from curate.record import Row


def draw_shots(rows: Sequence[Row], count: int, contract: Contract, seed: int) -> tuple[Shot, ...]:
    """``count`` examples by seed: every second one is answerable, each from another context.

    They come from the shorter half of the contexts, because every prompt will carry them. Raises
    `UserError` where there are not enough rows of either kind.
    """
    bound = median(len(row.context) for row in rows) if rows else 0
    fitting = (row for row in rows if row.context and not row.history)
    short = [row for row in fitting if len(row.context) <= bound]
    random.Random(seed).shuffle(short)
    shots: list[Shot] = []
    used: set[str] = set()
    for number in range(count):
        sufficient = number % 2 == 0
        row = next((r for r in short if r.sufficient == sufficient and r.context not in used), None)
        if row is None:
            kind = "answerable" if sufficient else "unanswerable"
            raise UserError(f"the train split has no {kind} row left for shot {number + 1}")
        used.add(row.context)
        shots.append(Shot(row.context, row.question, contract.target(row.answers, sufficient)))
    return tuple(shots)
