"""Signals of one answer: numbers that say how far it can be trusted.

Each is a function of an `Answer` alone, and larger means more likely sufficient or right.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from abstain.answer import Answer

Array = NDArray[np.float64]


def p_abstain(answer: Answer) -> float:
    """Minus the log-odds of the abstention phrase, scored as a whole with its end token.

    −log(p / (1 − p)) with p = Π P(token | prompt, tokens before): what the model was trained to
    say when the context does not suffice, whether or not it said it this time.
    """
    log_p = min(answer.log_p_abstain, -1e-7)  # p = 1 in float32 would make the odds infinite
    return math.log(-math.expm1(log_p)) - log_p


def sufficiency_head(answer: Answer) -> float:
    """The head's logit that the context suffices, read before the first token is generated."""
    return 0.0 if answer.head_logit is None else answer.head_logit


def mean_log_likelihood(answer: Answer) -> float:
    """Mean log-likelihood of the answer's tokens, the end token included; in nats.

    The length-normalised sequence score (Malinin and Gales 2021).
    """
    return answer.mean_log_likelihood


SIGNALS: dict[str, Callable[[Answer], float]] = {
    "p_abstain": p_abstain,
    "sufficiency_head": sufficiency_head,
    "mean_log_likelihood": mean_log_likelihood,
}


def available(has_head: bool) -> list[str]:
    """Names of the signals that a run can give."""
    return [name for name in SIGNALS if has_head or name != "sufficiency_head"]


def matrix(answers: Sequence[Answer], names: Sequence[str]) -> Array:
    """[answers, signals]."""
    return np.array([[SIGNALS[name](answer) for name in names] for answer in answers]).reshape(
        len(answers), len(names)
    )
