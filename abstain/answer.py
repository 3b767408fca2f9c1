"""One answer with the numbers that signals are made of."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Answer:
    """What the model said to one question, and how sure it was: natural logarithms throughout."""

    text: str
    abstained: bool
    log_likelihood: float  # of the answer and its end token, in nats
    tokens: int  # generated, with the end token where it came
    log_p_abstain: float  # of the abstention phrase and its end token, whatever was said
    head_logit: float | None  # of sufficiency; None for a run without a head

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per token."""
        return self.log_likelihood / self.tokens
