"""The area under the receiver operating characteristic."""

import numpy as np
from numpy.typing import NDArray


def auroc(score: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """P(a positive row scores above a negative one), ties counting half; NaN for one class."""
    from scipy.stats import rankdata

    count = int(positive.sum())
    others = len(positive) - count
    if not count or not others:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[positive].sum() - count * (count + 1) / 2) / (count * others))
