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

from abstain.bootstrap import Interval, intervals
from abstain.metrics import Judged, compute
from abstain.signals import Array
from curate.errors import UserError
from curate.record import read_parquet

Block = Literal["raw", "routed"]
_COLUMNS = (
    "id",
    "group",
    "em",
    "f1",
    "sufficient",
    "abstained",
    "answered",
    "right",
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
        right = answered & column["right"].astype(bool)
        numbers = column["confidence"], column["p_sufficient"]
        return Judged(em, f1, sufficient, answered, right, *numbers)

    answered = column["answered"].astype(bool)
    declined = (~sufficient).astype(float)  # what an empty answer scores
    em, f1 = column["em"].astype(float), column["f1"].astype(float)
    routed = judged(np.where(answered, em, declined), np.where(answered, f1, declined), answered)
    ids, groups = column["id"].tolist(), column["group"].tolist()
    return Evaluation(str(folder), ids, groups, judged(em, f1, said), routed)


def compare(folders: Sequence[Path], block: Block) -> dict[str, Any]:
    """Every metric of each evaluation, and its difference from the first one's, with intervals.

    Only rows that all of them have answered count. Raises `UserError` where there are none.
    """
    evaluations = [read_evaluation(folder) for folder in folders]
    places = [{row: at for at, row in enumerate(e.ids)} for e in evaluations]
    common = [row for row in evaluations[0].ids if all(row in place for place in places)]
    if not common:
        raise UserError("these evaluations have no row in common; evaluate them on the same data")
    judged = [
        evaluation.block(block, [place[row] for row in common])
        for evaluation, place in zip(evaluations, places, strict=True)
    ]
    groups = [evaluations[0].groups[places[0][row]] for row in common]
    names = [evaluation.name for evaluation in evaluations]
    return {
        "block": block,
        "rows": len(common),
        "left_out": {
            name: len(e.ids) - len(common) for name, e in zip(names, evaluations, strict=True)
        },
        "metrics": {
            name: intervals(partial(_compute, found), groups)
            for name, found in zip(names, judged, strict=True)
        },
        "differences": {
            name: _differences(judged[0], found, groups)
            for name, found in zip(names[1:], judged[1:], strict=True)
        },
    }


def _compute(judged: Judged, rows: NDArray[np.int64]) -> dict[str, float]:
    return compute(judged.take(rows))


def _differences(first: Judged, other: Judged, groups: Sequence[str]) -> dict[str, Interval]:
    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        one, two = _compute(first, rows), _compute(other, rows)
        return {name: two[name] - one[name] for name in one}

    return intervals(measure, groups)
