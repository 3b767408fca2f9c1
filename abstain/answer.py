"""One answer with the evidence that signals are made of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from abstain.calibration import Calibration
    from abstain.evidence import Evidence
    from abstain.laplace import LaplaceScore
    from abstain.mc_dropout import DropoutSamples
    from abstain.prefix_cache import PrefixCache
    from curate.contract import Contract
    from curate.record import Row


@dataclass(frozen=True)
class Answer:
    """What the model said to one question, and how sure it was: natural logarithms throughout.

    What was not asked for, or cannot be had from this model, is None.
    """

    text: str
    abstained: bool  # said the phrase, or was given no chance to say anything else
    token_log_p: tuple[float, ...]  # of each generated token, with the end token where it came
    token_entropy: tuple[float, ...] | None = None  # of the distribution that each was taken from
    log_p_abstain: float | None = None  # of the abstention phrase and its end, whatever was said
    log_p_abstain_first: float | None = None  # of the phrase's first token
    head_logit: float | None = None  # the sufficiency head's
    probe_logit: float | None = None  # the probe's, fitted after training
    reason: str | None = None  # why the context would fall short, by the reason head
    true_logit: float | None = None  # P(True)'s log-odds
    samples: tuple[str, ...] | None = None  # further answers, drawn at random
    dropout: "DropoutSamples | None" = None
    laplace: "LaplaceScore | None" = None
    skipped: bool = False  # declined by the sufficiency head before a token was generated

    @property
    def log_likelihood(self) -> float:
        """Of the answer and its end token."""
        return sum(self.token_log_p)

    @property
    def tokens(self) -> int:
        """Generated, the end token included."""
        return len(self.token_log_p)

    @property
    def mean_log_likelihood(self) -> float:
        """Log-likelihood per token."""
        return self.log_likelihood / max(1, self.tokens)


class Answering(Protocol):
    """What answers questions: a model in this process, or a server."""

    contract: "Contract"
    evidence: "Evidence"  # gathered with every answer
    seconds: dict[str, float]  # spent on each kind of evidence
    prefixes: "PrefixCache | None"  # computed contexts, kept for later questions
    calibration: "Calibration | None"  # its confidence and its threshold, once there are any

    @property
    def blocks(self) -> int:
        """How many blocks the model has: what a complete forward pass runs."""
        ...

    def gather(self, evidence: "Evidence") -> None:
        """Gather this evidence with every answer from now on."""
        ...

    def possible(self, evidence: "Evidence", fitted: bool = True) -> "Evidence":
        """As much of this evidence as the model can give; what it cannot is told in a warning.

        ``fitted``: what a calibration has to fit must be there already.
        """
        ...

    def check(self, row: "Row") -> int:
        """The tokens of a row's prompt; 0 where only a server could tell.

        Raises `UserError` where this row cannot be answered, say because it is too long.
        """
        ...

    def hash(self) -> str:
        """Names the model with its prompt and its calibration: another one answers otherwise."""
        ...

    def answer(
        self, rows: "Sequence[Row]", max_new_tokens: int = 64, early: bool = False
    ) -> "Iterator[list[tuple[int, Answer]]]":
        """Answers with their rows' numbers, in any order.

        ``early``: what the policy declines by the sufficiency head alone is not generated.
        """
        ...
