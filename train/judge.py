"""What a model says itself of labelled rows, found once and kept."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abstain.answer import Answering
from abstain.compare import Evaluation, read_evaluation
from abstain.evaluate import store
from abstain.metrics import compute
from abstain.predict import predict
from curate.bootstrap import Interval, intervals
from curate.errors import UserError
from curate.files import writable_folder
from curate.record import Row, digest, read_fold, rows_digest
from train.kept import kept

JUDGED = "judged.json"  # what was judged, and the seconds that an answer took


def labelled(data: Path, fold: str) -> list[Row]:
    """The rows of a split that can be judged on; `UserError` where there are none."""
    rows = [row for row in read_fold(data, fold) if row.sufficient is not None]
    if not rows:
        raise UserError(f"{data}: its {fold} split has no labelled rows to judge on")
    return rows


def judge(
    rows: Sequence[Row], out: Path, of: str, answering: Callable[[], Answering]
) -> Evaluation:
    """What a model says itself of labelled rows; read where it has been judged before.

    ``of`` names the model and its prompt.
    """

    def ask() -> float:
        writable_folder(out)
        # Of other answers: killed in between, they would be taken for these.
        (out / JUDGED).unlink(missing_ok=True)
        answerer = answering()
        store(predict(answerer, list(rows), "judge"), out)
        return answerer.seconds["answer"] / len(rows)

    kept(out / JUDGED, digest(of, rows_digest(rows)), ask)
    return read_evaluation(out)


def change(before: Evaluation, after: Evaluation, metrics: Sequence[str]) -> dict[str, Interval]:
    """The second's metrics minus the first's, on the same rows, resampled together by context."""

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        one, other = compute(before.raw.take(rows)), compute(after.raw.take(rows))
        return {metric: other[metric] - one[metric] for metric in metrics}

    return intervals(measure, before.groups)
