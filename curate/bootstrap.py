"""Confidence intervals by resampling whole groups: rows of one group are not independent."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

DRAWS = 500
Interval = dict[str, float | None]


def resamples(
    groups: Sequence[str], seed: int = 13, draws: int = DRAWS
) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each draw: groups drawn with replacement; nothing for a single group."""
    by_name: dict[str, list[int]] = {}
    for number, name in enumerate(groups):
        by_name.setdefault(name, []).append(number)
    members = [np.array(numbers) for numbers in by_name.values()]
    random = np.random.default_rng(seed)
    for _ in range(draws if len(members) > 1 else 0):
        picks = random.integers(0, len(members), len(members))
        yield np.concatenate([members[i] for i in picks])


def intervals(
    measure: Callable[[NDArray[np.int64]], Mapping[str, float]],
    groups: Sequence[str],
    seed: int = 13,
    draws: int = DRAWS,
) -> dict[str, Interval]:
    """What ``measure`` finds on all rows, each with a 95 % percentile interval.

    None stands where it finds NaN, and as bounds where it does so in most draws.
    """
    values = measure(np.arange(len(groups)))
    drawn: dict[str, list[float]] = {name: [] for name in values}
    for rows in resamples(groups, seed, draws):
        for name, value in measure(rows).items():
            if not np.isnan(value):
                drawn[name].append(value)
    return {name: _interval(value, drawn[name], draws) for name, value in values.items()}


def _interval(value: float, drawn: list[float], draws: int) -> Interval:
    if np.isnan(value):
        return {"value": None, "low": None, "high": None}
    bounds: Any = (None, None)
    if len(drawn) > draws / 2:
        bounds = map(float, np.percentile(drawn, [2.5, 97.5]))
    low, high = bounds
    return {"value": float(value), "low": low, "high": high}
