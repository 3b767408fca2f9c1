"""Worked examples come from the train split: half answerable, short, each from another context."""

import pytest

from abstain.shots import draw_shots
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row

ROWS = [
    Row(f"q{i}?", "word " * (5 + i // 4), answers=[f"a{i}"], sufficient=i % 2 == 0)
    for i in range(40)
]


def test_every_second_one_is_answerable_and_contexts_differ() -> None:
    shots = draw_shots(ROWS, 4, Contract(), seed=1)
    assert [shot.answer == "unanswerable" for shot in shots] == [False, True, False, True]
    assert len({shot.context for shot in shots}) == 4
    longest = sorted(len(row.context) for row in ROWS)[-10]
    assert all(len(shot.context) < longest for shot in shots)
    assert draw_shots(ROWS, 4, Contract(), seed=1) == shots
    assert draw_shots(ROWS, 4, Contract(), seed=2) != shots


def test_too_few_rows_are_named() -> None:
    with pytest.raises(UserError, match="no unanswerable row left for shot 2"):
        draw_shots([row for row in ROWS if row.sufficient], 2, Contract(), seed=1)
    with pytest.raises(UserError, match="no answerable row left for shot 1"):
        draw_shots([], 1, Contract(), seed=1)
