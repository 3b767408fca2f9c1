"""Dawid and Skene (1979): who is right how often, and what the truth then is, both by one model."""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.errors import UserError


@dataclass(frozen=True)
class Estimate:
    """The model's view. ``suffices`` is P(the context suffices) of each row.

    ``sensitivity`` is each person's P(says yes | it suffices), ``specificity`` their P(says no | it
    does not); None where no row of that kind was theirs.
    """

    suffices: dict[str, float]
    sensitivity: dict[str, float | None]
    specificity: dict[str, float | None]


def dawid_skene(
    labels: Mapping[str, Mapping[str, bool]], gold: Mapping[str, bool], iterations: int = 100
) -> Estimate:
    """Estimate from yes and no by row and person; rows of ``gold`` are held to what is known."""
    try:
        from crowdkit.aggregation import DawidSkene
    except ImportError as error:
        raise UserError(
            "Dawid and Skene's model needs crowd-kit: pip install 'grounded-abstain[annotate]'"
        ) from error
    import pandas as pd

    told = [
        {"task": row, "worker": person, "label": label}
        for row, said in labels.items()
        for person, label in said.items()
    ]
    if not told:
        return Estimate({}, {}, {})
    if len({one["label"] for one in told}) == 1:
        return _unanimous(labels, gold, bool(told[0]["label"]))
    known = pd.Series({row: label for row, label in gold.items() if row in labels}, dtype=object)
    # All iterations are made: the library's test for convergence counts a row's prior once for
    # each of its annotators, and can stop far from where the likelihood is highest.
    model = DawidSkene(n_iter=iterations, tol=-math.inf)
    model.fit(pd.DataFrame(told), known if len(known) else None)
    probabilities: Any = model.probas_
    # A label that nobody gave is no column.
    suffices = {
        str(row): float(value)
        for row, value in probabilities.reindex(columns=[True], fill_value=0.0)[True].items()
    }
    confusions: Any = model.errors_
    people = sorted({str(one["worker"]) for one in told})
    errors = {
        (str(person), bool(said), bool(true)): float(value)
        for (person, said), line in confusions.iterrows()
        for true, value in line.items()
    }

    def skill(true: bool) -> dict[str, float | None]:
        sums = {p: sum(errors.get((p, said, true), 0.0) for said in (True, False)) for p in people}
        return {p: errors.get((p, true, true), 0.0) if sums[p] > 0 else None for p in people}

    return Estimate(suffices, skill(True), skill(False))


def _unanimous(
    labels: Mapping[str, Mapping[str, bool]], gold: Mapping[str, bool], label: bool
) -> Estimate:
    """Where everyone always says the same: it is so, but for what is known to be otherwise.

    The likelihood could not tell: with a known row that contradicts them, it is highest where all
    of them are always wrong.
    """
    truth = {row: gold.get(row, label) for row, said in labels.items() if said}
    met: dict[str, set[bool]] = defaultdict(set)
    for row, true in truth.items():
        for person in labels[row]:
            met[person].add(true)
    return Estimate(
        {row: float(true) for row, true in truth.items()},
        {p: float(label) if True in kinds else None for p, kinds in met.items()},
        {p: float(not label) if False in kinds else None for p, kinds in met.items()},
    )
