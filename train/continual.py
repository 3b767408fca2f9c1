"""`train continual`: what later rounds of learning have cost on the test rows of earlier ones.

Each round has a run and the data set that it was trained on. Every run answers its own round's test
rows and those of all rounds before: R[i, j], run i on the rows of round j (Lopez-Paz and Ranzato
2017, "Gradient Episodic Memory"). What is asked of the newest run is the difference between it and
each earlier run on that one's own rows, resampled by context: below zero, something is forgotten.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abstain.answerer import load_answerer
from abstain.compare import Evaluation
from abstain.groups import context_groups
from abstain.metrics import Judged, compute
from abstain.run import FILE, weights_hash
from curate.bootstrap import Interval, intervals
from curate.console import interval, table
from curate.errors import UserError
from curate.record import Row, read_fold
from train.judge import change, judge, labelled

METRICS = ("f1", "has_ans_f1", "no_ans_accuracy", "auroc_sufficient")


@dataclass(frozen=True)
class Round:
    """A run and the data set that it was trained on."""

    run: Path
    data: Path


@dataclass(frozen=True)
class Remembered:
    """What the newest run still knows of one round."""

    data: str
    rows: int
    learnt_later: int  # rows left out: a later round trains on their contexts
    scores: dict[str, list[Interval]]  # by metric: of each run from that round on
    change: dict[str, Interval]  # the newest run's minus that round's own; none of the last round


@dataclass(frozen=True)
class Continual:
    """All rounds, the oldest first."""

    runs: list[str]
    rounds: list[Remembered]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)

    def worst(self, metric: str) -> float:
        """The largest loss of any earlier round: below zero, something is forgotten."""
        values = [one.change[metric]["value"] for one in self.rounds if one.change]
        return min((value for value in values if value is not None), default=0.0)

    def text(self) -> str:
        """For a person."""
        parts = []
        for metric in METRICS:
            lines = []
            for number, one in enumerate(self.rounds):
                scores = [interval(score) for score in one.scores[metric]]
                lost = interval(one.change[metric]) if one.change else ""
                lines.append((one.data, str(one.rows), *[""] * number, *scores, lost))
            parts.append(table((metric, "rows", *self.runs, "newest – own"), lines))
        left_out = sum(one.learnt_later for one in self.rounds)
        if left_out:
            parts.append(f"{left_out} test rows left out: a later round trains on their contexts")
        return "\n\n".join(parts)


def continual(rounds: Sequence[Round], out: Path) -> Continual:
    """Judge every run on its own and all earlier test rows; what is in ``out`` is not done again.

    Raises `UserError` for fewer than two rounds, and where a round has no test rows.
    """
    if len(rounds) < 2:
        raise UserError("what was forgotten takes two rounds: give --round RUN DATA for each")
    found = []
    for number, one in enumerate(rounds):
        every = labelled(one.data, "test")
        rows = _unlearnt(every, rounds[number + 1 :])
        if not rows:
            raise UserError(f"{one.data}: later rounds train on all contexts of its test rows")
        judged = [
            _judged(later.run, rows, out / f"{number + 1}-by-{number + 1 + after}")
            for after, later in enumerate(rounds[number:])
        ]
        groups = judged[0].groups
        scores = [intervals(partial(_scores, one.raw), groups) for one in judged]
        lost = change(judged[0], judged[-1], METRICS) if len(judged) > 1 else {}
        by_metric = {metric: [one[metric] for one in scores] for metric in METRICS}
        found.append(Remembered(str(one.data), len(rows), len(every) - len(rows), by_metric, lost))
    return Continual([str(one.run) for one in rounds], found)


def _unlearnt(rows: Sequence[Row], later: Sequence[Round]) -> list[Row]:
    """The rows whose contexts no later round trains on, as they are or as derived."""
    trains = [read_fold(one.data, "train") for one in later]
    learnt = {group for train in trains for group in context_groups(train)}
    return [row for row, of in zip(rows, context_groups(rows), strict=True) if of not in learnt]


def _judged(run: Path, rows: Sequence[Row], out: Path) -> Evaluation:
    if not (run / FILE).exists():
        raise UserError(f"{run}: has no {FILE}; rounds are runs of `train run`")
    answering = partial(load_answerer, str(run), calibrated=False)
    return judge(rows, out, weights_hash(run), answering)


def _scores(judged: Judged, rows: NDArray[np.int64]) -> dict[str, float]:
    found = compute(judged.take(rows))
    return {metric: found[metric] for metric in METRICS}
