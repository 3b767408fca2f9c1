"""`abstain compare`: evaluations side by side, and their differences on the same rows.

Two runs answer the same questions, so that their errors go together: the difference of a metric is
resampled as a whole, both runs on the same draw of groups, which tells apart what two separate
intervals would not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abstain import charts
from abstain.calibration import RIGHT_F1
from abstain.metrics import Judged, compute
from abstain.page import render
from abstain.signals import Array
from curate.bootstrap import Interval, intervals
from curate.errors import UserError
from curate.record import read_parquet

Block = Literal["raw", "routed"]
# The metrics that the picture of differences shows.
_PICTURED = (
    "em",
    "f1",
    "has_ans_em",
    "no_ans_accuracy",
    "auroc_sufficient",
    "auroc_correct",
    "coverage",
    "selective_risk",
)
_COLUMNS = (
    "id",
    "group",
    "em",
    "f1",
    "sufficient",
    "abstained",
    "answered",
    "confidence",
    "p_sufficient",
)


@dataclass(frozen=True)
class Evaluation:
    """What `abstain evaluate` has left in a folder, row by row."""

    name: str
    ids: list[str]
    groups: list[str]
    raw: Judged
    routed: Judged

    def block(self, block: Block, rows: Sequence[int]) -> Judged:
        """One block's rows, in the order asked for."""
        return getattr(self, block).take(np.array(rows, dtype=np.int64))  # type: ignore[no-any-return]


def read_evaluation(folder: Path) -> Evaluation:
    """Read ``predictions.parquet``; raises `UserError` where a column of it is missing."""
    path = folder / "predictions.parquet"
    table = read_parquet(path)
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise UserError(f"{path}: has no column '{missing[0]}'; evaluate the run again")
    column = {name: np.array(table[name].to_pylist()) for name in _COLUMNS}
    sufficient, said = column["sufficient"].astype(bool), ~column["abstained"].astype(bool)

    def judged(em: Array, f1: Array, answered: NDArray[np.bool_]) -> Judged:
        # One definition for all, whatever each was calibrated with.
        right = answered & sufficient & (f1 >= RIGHT_F1)
        numbers = column["confidence"], column["p_sufficient"]
        return Judged(em, f1, sufficient, answered, right, *numbers)

    answered = column["answered"].astype(bool)
    declined = (~sufficient).astype(float)  # what an empty answer scores
    em, f1 = column["em"].astype(float), column["f1"].astype(float)
    routed = judged(np.where(answered, em, declined), np.where(answered, f1, declined), answered)
    ids, groups = column["id"].tolist(), column["group"].tolist()
    return Evaluation(str(folder), ids, groups, judged(em, f1, said), routed)


@dataclass(frozen=True)
class Comparison:
    """Some evaluations on the rows that they share."""

    judged: dict[str, Judged]  # by the evaluation's name, the rows in one order
    found: dict[str, Any]  # metrics, differences and counts, as printed for a program

    def render(self) -> str:
        """The page: pictures and the table."""
        names = list(self.judged)
        changes = self.found["differences"]
        pictures = [
            (
                "Risk against coverage",
                "The most confident answers first: the lower curve errs less.",
                charts.risk_coverages(self.judged),
            ),
            (
                f"Differences from {names[0]}",
                "Intervals that leave out 0 are not chance, at 95 %.",
                charts.differences(changes, _PICTURED),
            ),
        ]
        return render("compare.html.j2", names=names, found=self.found, charts=pictures)


def compare(folders: Sequence[Path], block: Block) -> Comparison:
    """Every metric of each evaluation, and its difference from the first one's, with intervals.

    Only rows that all of them hold count, and *right* is an F1 of at least `RIGHT_F1` for all.
    Raises `UserError` where there are none, or where a row's label differs.
    """
    evaluations = [read_evaluation(folder) for folder in folders]
    places = [{row: at for at, row in enumerate(e.ids)} for e in evaluations]
    common = [row for row in evaluations[0].ids if all(row in place for place in places)]
    if not common:
        raise UserError("these evaluations have no row in common; evaluate them on the same data")
    judged = {
        evaluation.name: evaluation.block(block, [place[row] for row in common])
        for evaluation, place in zip(evaluations, places, strict=True)
    }
    groups = [evaluations[0].groups[places[0][row]] for row in common]
    first, *others = judged
    for name in others:
        differs = np.flatnonzero(judged[first].sufficient != judged[name].sufficient)
        if len(differs):
            raise UserError(
                f"row {common[differs[0]]} is labelled otherwise in {name} than in {first}; "
                "evaluate both on the same data"
            )
    found = {
        "block": block,
        "rows": len(common),
        "left_out": {e.name: len(e.ids) - len(common) for e in evaluations},
        "metrics": {
            name: intervals(partial(_compute, rows), groups) for name, rows in judged.items()
        },
        "differences": {name: _differences(judged[first], judged[name], groups) for name in others},
    }
    return Comparison(judged, found)


def _compute(judged: Judged, rows: NDArray[np.int64]) -> dict[str, float]:
    return compute(judged.take(rows))


def _differences(first: Judged, other: Judged, groups: Sequence[str]) -> dict[str, Interval]:
    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        one, two = _compute(first, rows), _compute(other, rows)
        return {name: two[name] - one[name] for name in one}

    return intervals(measure, groups)
