"""Leaving out the rows that give their label away, until no shortcut tells it any more.

Adversarial filtering (Sakaguchi et al. 2020; Le Bras et al. 2020): a classifier that sees the
question alone, the context alone or their overlap alone scores rows that it was not fitted on, and
those that it gets right most surely go, as many of either label.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from curate.audit.shortcuts import (
    FEATURES,
    auditable,
    groups_of,
    labels_of,
    shortcuts,
    unseen_scores,
)
from curate.auroc import auroc
from curate.errors import UserError
from curate.record import Dropped, Row

STEP = "shortcuts"
ROUNDS = 20
SHARE = 0.05  # of the rows, in one round
LEAST = 0.4  # of the rows must stay, or the filter has nothing left to teach


@dataclass(frozen=True)
class Balanced:
    """What is left, what went, and each round's AUROC by features."""

    rows: list[Row]
    dropped: list[Dropped]
    rounds: list[dict[str, float]]


def enforce(rows: Sequence[Row], limit: float, balance: bool) -> tuple[list[Row], list[Dropped]]:
    """Rows of which no shortcut passes the limit, and what had to go for it.

    Raises `UserError` where one still does; without ``balance`` nothing is left out.
    """
    result = balanced(rows, limit) if balance else Balanced(list(rows), [], [])
    over = [found for found in shortcuts(result.rows) if (found.auroc["value"] or 0) > limit]
    if over:
        told = "; ".join(
            f"{found.features}: {found.auroc['value']:.3f}, by "
            + ", ".join(f"'{name}'" for name, _ in found.telltales[:4])
            for found in over
        )
        why = "more rows cannot be left out" if balance else "'split.balance' is off"
        raise UserError(
            f"train: labels can be told without reading ({told}), and split.shortcut_limit is "
            f"{limit:g}; {why}. Take other methods, or a higher limit; nothing was written"
        )
    return result.rows, result.dropped


def balanced(rows: Sequence[Row], limit: float) -> Balanced:
    """Leave rows out until every shortcut's AUROC is at most ``limit``, or too few would stay."""
    kept = auditable(rows)
    whole = len(kept)
    dropped: list[Dropped] = []
    rounds: list[dict[str, float]] = []
    for _ in tqdm(range(ROUNDS), desc="leave out shortcuts", unit="round", leave=False):
        labels = labels_of(kept)
        if labels.all() or not labels.any() or len(set(groups_of(kept))) < 2:
            break
        scores = {name: unseen_scores(name, kept) for name in FEATURES}
        areas = {name: auroc(found, labels) for name, found in scores.items()}
        rounds.append(areas)
        worst = max(areas, key=lambda name: areas[name])
        if areas[worst] <= limit or len(kept) * (1 - SHARE) < LEAST * whole:
            break
        gone = _surest(scores[worst], labels, max(1, round(SHARE * len(kept) / 2)))
        detail = f"{worst} tells its label (AUROC {areas[worst]:.3f}, limit {limit:g})"
        dropped += [Dropped(kept[i], STEP, "shortcut", detail) for i in sorted(gone)]
        kept = [row for i, row in enumerate(kept) if i not in gone]
    ids = {one.row.id for one in dropped}
    return Balanced([row for row in rows if row.id not in ids], dropped, rounds)


def _surest(scores: NDArray[np.float64], labels: NDArray[np.bool_], count: int) -> set[int]:
    """Numbers of the ``count`` rows of each label that are told most surely."""
    gone: set[int] = set()
    for label, sign in ((True, -1), (False, 1)):
        members = np.flatnonzero(labels == label)
        order = members[np.argsort(sign * scores[members], kind="stable")]
        gone |= set(order[:count].tolist())
    return gone
