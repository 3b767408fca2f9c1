"""What more rows would bring: training on parts of the data, and a power law through the results.

Scores grow with the number of training rows n about as a − b·n^−c (Figueroa et al. 2012,
"Predicting sample size required for classification performance"; Hestness et al. 2017, "Deep
learning scaling is predictable, empirically"). The law is fitted anew to every resampling of the
judged rows, which gives what is read off it an interval. One training run stands at each size: how
much another seed would have changed is not in the interval.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abstain.answerer import load_answerer
from abstain.groups import draw_contexts
from abstain.metrics import Judged, compute
from abstain.run import weights_hash
from abstain.signals import Array
from curate.bootstrap import Interval, intervals
from curate.errors import UserError
from curate.files import writable_folder
from curate.record import Row, read_fold, to_table, write_table
from train import trainer
from train.judge import judge, labelled
from train.settings import TrainSettings

SHARES = (0.1, 0.25, 0.5, 1.0)
_EXPONENTS = np.geomspace(0.05, 2.0, 60)
_SIZES = 3  # as many as the law has numbers
_FURTHER = (2.0, 4.0)  # times as many rows: farther than that nothing is claimed


@dataclass(frozen=True)
class Law:
    """``a − b·n^−c``, one for each of some fits; arrays [fits]."""

    a: Array
    b: Array
    c: Array

    def at(self, rows: float) -> Array:
        """The score with so many training rows."""
        return np.asarray(self.a - self.b * rows**-self.c)

    def rows_for(self, score: float) -> Array:
        """Training rows until that score; infinite where it is never reached."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            rows = (self.b / (self.a - score)) ** (1 / self.c)
        return np.where(self.a > score, rows, np.inf)


def fit(sizes: Sequence[float], scores: Array) -> Law:
    """Least squares over ``scores`` [fits, sizes]; a law does not fall with n, nor exceed 1.

    What is NaN at one size has no law: it is NaN throughout. Raises `ValueError` for fewer than
    three different sizes, through which any law would go.
    """
    if len(set(sizes)) < _SIZES:
        raise ValueError(f"a law needs {_SIZES} different sizes, not {sorted(set(sizes))}")
    n = np.asarray(sizes, dtype=float)
    best: Array = np.full(len(scores), np.inf)
    a: Array = np.zeros(len(scores))
    b: Array = np.zeros(len(scores))
    c: Array = np.zeros(len(scores))
    for exponent in _EXPONENTS:
        x = n**-exponent
        centred = x - x.mean()
        slope = (scores @ centred) / (centred @ centred)
        falls = np.maximum(-slope, 0.0)  # b
        top = scores.mean(1) + falls * x.mean()  # a
        above = top > 1
        falls = np.where(above, np.maximum(((1 - scores) @ x) / (x @ x), 0.0), falls)
        top = np.where(above, 1.0, top)
        error = ((scores - (top[:, None] - falls[:, None] * x)) ** 2).sum(1)
        better = error < best
        best = np.where(better, error, best)
        a, b = np.where(better, top, a), np.where(better, falls, b)
        c = np.where(better, exponent, c)
    undefined = np.isnan(scores).any(axis=1)
    for values in (a, b, c):
        values[undefined] = np.nan
    return Law(a, b, c)


@dataclass(frozen=True)
class Curve:
    """A learning curve, measured and drawn on."""

    metric: str
    sizes: list[int]  # training rows
    scores: list[Interval]
    further: dict[int, Interval]  # what the law says of more rows than there are
    gain: Interval  # of twice the rows over all there are
    rows_needed: Interval | None  # until the goal; None: no goal; infinite: not by more rows
    # With the number of rows; else more of them are not said to bring anything. None: the metric
    # has no value at one of the sizes.
    rises: bool | None

    def lines(self) -> list[tuple[int, Interval, str]]:
        """Size, score, and whether it was measured, for a table."""
        told = {True: "by the law", False: "it does not rise", None: ""}[self.rises]
        measured = [(n, s, "") for n, s in zip(self.sizes, self.scores, strict=True)]
        return measured + [(n, s, told) for n, s in self.further.items()]


def learning_curve(
    data: Path, out: Path, settings: TrainSettings, metric: str, goal: float | None = None
) -> Curve:
    """Train on parts of the train split and judge each on the validation split.

    Whole contexts, each part within the next; what is in ``out`` already is not done again.
    """
    train, judged_on = read_fold(data, "train"), labelled(data, "validation")
    parts = {share: _part(train, share, settings.seed) for share in SHARES}
    sizes = [len(part) for part in parts.values()]
    if len(set(sizes)) < len(SHARES):
        raise UserError(
            f"{data}: {len(train)} training rows give parts of {sizes} (whole contexts), too few "
            "for a learning curve; build a data set with more contexts"
        )
    evaluations = []
    for share, part in parts.items():
        folder = part_folder(out, share)
        stored = _stored(folder, part, judged_on)
        trainer.run(stored, folder / "run", settings)
        answering = partial(load_answerer, str(folder / "run"), calibrated=False)
        of = weights_hash(folder / "run")
        evaluations.append(judge(judged_on, folder / "evaluation", of, answering))
    judged = [evaluation.raw for evaluation in evaluations]
    return draw_on(sizes, judged, evaluations[-1].groups, metric, goal)


def _part(train: Sequence[Row], share: float, seed: int) -> list[Row]:
    contexts = draw_contexts(train, max(1, round(share * len(train))), seed)
    return list(itertools.chain.from_iterable(contexts))


def part_folder(out: Path, share: float = SHARES[-1]) -> Path:
    """Where a curve in ``out`` keeps what it has made of this share of the rows: data, run, …"""
    return out / f"{100 * share:.0f}"


def _stored(folder: Path, train: Sequence[Row], validation: Sequence[Row]) -> Path:
    data = folder / "data"
    writable_folder(data)
    write_table(to_table(list(train)), data / "train.parquet")
    write_table(to_table(list(validation)), data / "validation.parquet")
    return data


def draw_on(
    sizes: Sequence[int],
    evaluations: Sequence[Judged],
    groups: Sequence[str],
    metric: str,
    goal: float | None,
) -> Curve:
    """The curve through evaluations on the same rows, which belong to ``groups``."""
    whole = sizes[-1]
    found = intervals(partial(_read_off, sizes, evaluations, metric, goal), groups)
    gain = found["gain"]["value"]
    needed = None
    if goal is not None:
        needed = {end: None if (v := found["needed"][end]) is None else 10**v
                  for end in ("value", "low", "high")}  # fmt: skip
    return Curve(
        metric,
        list(sizes),
        [found[f"at {n}"] for n in sizes],
        {round(times * whole): found[f"further {times:g}"] for times in _FURTHER},
        found["gain"],
        needed,
        None if gain is None else gain > 0,
    )


_NEVER = 12.0  # decimal logarithm of rows that nobody has


def _read_off(
    sizes: Sequence[int],
    evaluations: Sequence[Judged],
    metric: str,
    goal: float | None,
    rows: NDArray[np.int64],
) -> dict[str, float]:
    """Scores, and what the law through them says, on one resampling."""
    scores = np.array([[compute(judged.take(rows))[metric] for judged in evaluations]])
    found = {f"at {n}": float(score) for n, score in zip(sizes, scores[0], strict=True)}
    law, whole, last = fit(sizes, scores), sizes[-1], float(scores[0, -1])
    flat = law.b[0] == 0  # it falls, or stands: what more rows bring is nothing, not a mean
    for times in _FURTHER:
        found[f"further {times:g}"] = last if flat else float(law.at(times * whole)[0])
    found["gain"] = float(law.at(2 * whole)[0] - law.at(whole)[0])
    if goal is not None:
        # By its logarithm: infinity has no percentile.
        needed = float(law.rows_for(goal)[0])
        if flat:
            needed = whole if last >= goal else np.inf
        undefined = bool(np.isnan(law.a[0]))
        found["needed"] = np.nan if undefined else min(_NEVER, np.log10(max(needed, 1.0)))
    return found
