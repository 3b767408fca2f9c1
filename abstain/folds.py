"""Folds for cross-validation that keep groups of rows together."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FOLDS = 5


def group_folds(groups: Sequence[str]) -> list[tuple[Any, Any]]:
    """Train and test rows of each fold; no group is divided, and folds are about equally large.

    Empty with fewer than two groups.
    """
    from sklearn.model_selection import GroupKFold

    count = min(FOLDS, len(set(groups)))
    if count < 2:
        return []
    return list(GroupKFold(count).split(np.zeros(len(groups)), groups=list(groups)))
