"""Signals: numbers that say how far an answer can be trusted, each with its formula and its cost.

Each is a function of a `Row` and its `Answer`, and larger means more likely sufficient or right.
Most cost nothing beyond generating the answer; the others say what `Evidence` they need. "answer"
below is what the model said, w₁ … w_n its tokens with the end token, x the prompt.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from abstain.answer import Answer
from abstain.evidence import Evidence
from curate.errors import UserError
from curate.record import Row
from curate.text import normalise

Array = NDArray[np.float64]
# What a signal is made of: a field of `Answer` that must not be None.
Needs = Literal[
    "token_log_p",
    "token_entropy",
    "log_p_abstain",
    "log_p_abstain_first",
    "head_logit",
    "probe_logit",
    "true_logit",
    "samples",
    "dropout",
    "laplace",
]


# What must be gathered for it, beyond the answer: the fields of `Evidence`.
_EVIDENCE = {
    "true_logit": "p_true",
    "samples": "samples",
    "dropout": "dropout",
    "laplace": "laplace",
}

Given = TypeVar("Given")


def given(evidence: Given | None) -> Given:
    """Evidence that was gathered; raises `ValueError` where it was not."""
    if evidence is None:
        raise ValueError("a signal was asked for whose evidence was not gathered")
    return evidence


def log_odds(log_p: float) -> float:
    """log(p / (1 − p)); p = 1 in float32 would make the odds infinite."""
    log_p = min(log_p, -1e-7)
    return log_p - math.log(-math.expm1(log_p))


def p_abstain(_: Row, answer: Answer) -> float:
    """Minus the log-odds of the abstention phrase, scored as a whole with its end token.

    −log(p / (1 − p)) with p = Π P(token | prompt, tokens before): what the model was trained to
    say when the context does not suffice, whether or not it said it this time.
    """
    return -log_odds(given(answer.log_p_abstain))


def p_abstain_first(_: Row, answer: Answer) -> float:
    """Minus the log-odds of the abstention phrase's first token alone."""
    return -log_odds(given(answer.log_p_abstain_first))


def sufficiency_head(_: Row, answer: Answer) -> float:
    """The jointly trained head's logit that the context suffices, read before any token."""
    return given(answer.head_logit)


def probe(_: Row, answer: Answer) -> float:
    """The logit of a linear probe on hidden states, fitted after training (Slobodkin et al. 2023).

    Fitted by `abstain calibrate` on rows that the adapter has not seen.
    """
    return given(answer.probe_logit)


def log_likelihood(_: Row, answer: Answer) -> float:
    """log P(answer | x) = Σ log P(wᵢ | x, w₁ … wᵢ₋₁), the sequence log-likelihood in nats."""
    return answer.log_likelihood


def mean_log_likelihood(_: Row, answer: Answer) -> float:
    """(1/n) log P(answer | x): the length-normalised score (Malinin and Gales 2021)."""
    return answer.mean_log_likelihood


def least_token(_: Row, answer: Answer) -> float:
    """minᵢ log P(wᵢ | …): an answer is as sure as its least sure token."""
    return min(answer.token_log_p, default=0.0)


def mean_entropy(_: Row, answer: Answer) -> float:
    """−(1/n) Σ H(P(· | x, w₁ … wᵢ₋₁)), in nats (Fomicheva et al. 2020)."""
    return -float(np.mean(given(answer.token_entropy))) if given(answer.token_entropy) else 0.0


def greatest_entropy(_: Row, answer: Answer) -> float:
    """−maxᵢ H(P(· | x, w₁ … wᵢ₋₁)), in nats."""
    return -max(given(answer.token_entropy), default=0.0)


def p_true(_: Row, answer: Answer) -> float:
    """log P(yes) − log P(no) when asked whether the context shows the proposed answer to be right.

    P(True) of Kadavath et al. (2022). A right abstention speaks against the context, so that an
    abstention turns the sign.
    """
    return -given(answer.true_logit) if answer.abstained else given(answer.true_logit)


def self_consistency(_: Row, answer: Answer) -> float:
    """Share of K sampled answers that equal the answer after normalisation (Wang et al. 2022)."""
    said = normalise(answer.text)
    return float(np.mean([normalise(sample) == said for sample in given(answer.samples)]))


def cluster_entropy(_: Row, answer: Answer) -> float:
    """−H over clusters of sampled answers, in nats; a cluster are those of equal normal form.

    Semantic entropy (Kuhn et al. 2023) with lexical instead of entailment clusters.
    """
    counts = np.array(list(Counter(map(normalise, given(answer.samples))).values()))
    share = counts / counts.sum()
    return float((share * np.log(share)).sum())


def context_support(row: Row, answer: Answer) -> float:
    """1 where the answer is a span of the context, else the share of its words found there.

    0 for an abstention; both sides normalised as for SQuAD's exact match.
    """
    said, context = normalise(answer.text), normalise(row.context)
    if answer.abstained or not said:
        return 0.0
    if f" {said} " in f" {context} ":
        return 1.0
    return _overlap(said, context)


def question_overlap(row: Row, _: Answer) -> float:
    """Share of the question's words that the context holds, normalised."""
    return _overlap(normalise(row.question), normalise(row.context))


def _overlap(text: str, context: str) -> float:
    words, known = text.split(), set(context.split())
    return sum(word in known for word in words) / len(words) if words else 0.0


def mc_mean_log_likelihood(_: Row, answer: Answer) -> float:
    """Mean over T dropout masks θₜ of (1/n) log P(answer | x, θₜ)."""
    return float(np.mean(given(answer.dropout).log_likelihood)) / given(answer.dropout).tokens


def mc_std_log_likelihood(_: Row, answer: Answer) -> float:
    """Minus the standard deviation over masks of (1/n) log P(answer | x, θₜ)."""
    return -float(np.std(given(answer.dropout).log_likelihood)) / given(answer.dropout).tokens


def mc_mean_p_abstain(_: Row, answer: Answer) -> float:
    """Minus the log-odds of the mean over masks of P(phrase | x, θₜ)."""
    log_p = np.array(given(answer.dropout).log_p_abstain)
    return -log_odds(float(np.logaddexp.reduce(log_p)) - math.log(len(log_p)))


def mc_std_p_abstain(_: Row, answer: Answer) -> float:
    """Minus the standard deviation over masks of P(phrase | x, θₜ)."""
    return -float(np.std(np.exp(given(answer.dropout).log_p_abstain)))


def mc_predictive_entropy(_: Row, answer: Answer) -> float:
    """−H of the masks' mean next-token distribution, mean over the answer's tokens."""
    return -given(answer.dropout).predictive_entropy


def mc_expected_entropy(_: Row, answer: Answer) -> float:
    """Minus the mean over masks of H of the next-token distribution: the data's share."""
    return -given(answer.dropout).expected_entropy


def mc_mutual_information(_: Row, answer: Answer) -> float:
    """Minus predictive less expected entropy: the model's own doubt (BALD, Houlsby et al. 2011)."""
    return given(answer.dropout).expected_entropy - given(answer.dropout).predictive_entropy


def mc_variation_ratio(_: Row, answer: Answer) -> float:
    """Minus the share of masks that do not prefer the most frequently preferred tokens.

    1 − f/T (Freeman 1965), over the likeliest token at each place of the answer.
    """
    return -given(answer.dropout).variation_ratio


def mc_mean_head(_: Row, answer: Answer) -> float:
    """Mean over masks of the sufficiency head's logit."""
    return float(np.mean(given(answer.dropout).head_logits["head"]))


def mc_std_head(_: Row, answer: Answer) -> float:
    """Minus the standard deviation over masks of that logit."""
    return -float(np.std(given(answer.dropout).head_logits["head"]))


def mc_std_probe(_: Row, answer: Answer) -> float:
    """Minus the standard deviation over masks of the probe's logit."""
    return -float(np.std(given(answer.dropout).head_logits["probe"]))


def laplace_log_odds(_: Row, answer: Answer) -> float:
    """`p_abstain`'s log-odds f shrunk by their variance: f / √(1 + π v / 8) (MacKay 1992)."""
    return given(answer.laplace).shrunk


def laplace_std(_: Row, answer: Answer) -> float:
    """Minus the standard deviation of those log-odds over a Laplace posterior of the adapter."""
    return -math.sqrt(given(answer.laplace).variance)


@dataclass(frozen=True)
class Signal:
    """A signal's function and what it needs."""

    value: Callable[[Row, Answer], float]
    needs: Needs
    head: str = ""  # the head whose samples under dropout it needs
    is_log_odds: bool = False  # so that dividing it by a temperature is meaningful

    @property
    def name(self) -> str:
        """As it is switched on and stored."""
        return self.value.__name__

    @property
    def evidence(self) -> str:
        """The field of `Evidence` that must be gathered for it; empty for a free signal."""
        return _EVIDENCE.get(self.needs, "")

    @property
    def is_free(self) -> bool:
        """Whether generating the answer gives it for nothing."""
        return not self.evidence

    def offered(self, answer: Answer) -> bool:
        """Whether an answer has what the signal needs."""
        evidence = getattr(answer, self.needs)
        if answer.skipped and self.needs in ("token_log_p", "token_entropy"):
            return False
        return evidence is not None and (not self.head or self.head in evidence.head_logits)

    def passes(self, evidence: Evidence, blocks: int) -> float:
        """Cost in forward passes beyond the one that generates the answer.

        Of a pass over the branch alone (question and answer), unless dropout is ``full``: the
        context has been read.
        """
        if self.needs == "true_logit":
            return 1.0
        if self.needs == "samples":
            return float(evidence.samples)
        if self.needs == "dropout" and evidence.dropout is not None:
            return evidence.dropout.passes(blocks)
        if self.needs == "laplace":  # forward, and twice that backward
            return 3 * evidence.laplace / blocks
        return 0.0


_ALL = (
    Signal(p_abstain, "log_p_abstain", is_log_odds=True),
    Signal(p_abstain_first, "log_p_abstain_first", is_log_odds=True),
    Signal(sufficiency_head, "head_logit", is_log_odds=True),
    Signal(probe, "probe_logit", is_log_odds=True),
    Signal(log_likelihood, "token_log_p"),
    Signal(mean_log_likelihood, "token_log_p"),
    Signal(least_token, "token_log_p"),
    Signal(mean_entropy, "token_entropy"),
    Signal(greatest_entropy, "token_entropy"),
    Signal(context_support, "token_log_p"),
    Signal(question_overlap, "token_log_p"),
    Signal(p_true, "true_logit", is_log_odds=True),
    Signal(self_consistency, "samples"),
    Signal(cluster_entropy, "samples"),
    Signal(mc_mean_log_likelihood, "dropout"),
    Signal(mc_std_log_likelihood, "dropout"),
    Signal(mc_mean_p_abstain, "dropout", is_log_odds=True),
    Signal(mc_std_p_abstain, "dropout"),
    Signal(mc_predictive_entropy, "dropout"),
    Signal(mc_expected_entropy, "dropout"),
    Signal(mc_mutual_information, "dropout"),
    Signal(mc_variation_ratio, "dropout"),
    Signal(mc_mean_head, "dropout", "head", is_log_odds=True),
    Signal(mc_std_head, "dropout", "head"),
    Signal(mc_std_probe, "dropout", "probe"),
    Signal(laplace_log_odds, "laplace", is_log_odds=True),
    Signal(laplace_std, "laplace"),
)
SIGNALS: dict[str, Signal] = {signal.name: signal for signal in _ALL}


def available(answers: Sequence[Answer]) -> list[str]:
    """Names of the signals that all of these answers can give."""
    return [name for name, s in SIGNALS.items() if all(s.offered(answer) for answer in answers)]


def matrix(rows: Sequence[Row], answers: Sequence[Answer], names: Sequence[str]) -> Array:
    """[answers, signals].

    Raises `UserError` for a signal that some answer cannot give, and for one that is NaN or
    infinite, with the first row where it is.
    """
    for name in names:
        if not all(SIGNALS[name].offered(answer) for answer in answers):
            raise UserError(f"signal '{name}' cannot be had from this model; calibrate again")
    pairs = list(zip(rows, answers, strict=True))
    values = [[SIGNALS[name].value(row, answer) for name in names] for row, answer in pairs]
    result = np.array(values, dtype=np.float64).reshape(len(pairs), len(names))
    for column, name in enumerate(names):
        refuse_not_finite(result[:, column], f"signal '{name}'", rows)
    return result


def refuse_not_finite(values: Array, what: str, rows: Sequence[Row]) -> None:
    """Raise `UserError` that names a row where a value [rows] is NaN or infinite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise UserError(
            f"{what} is not finite on {len(bad)} of {len(rows)} rows, the first of them "
            f"{rows[bad[0]].id or '(unnamed)'}; the model's weights are damaged or its numbers "
            "overflow"
        )


def chosen(text: str) -> tuple[str, ...]:
    """Signals switched on by name: ``free`` (no cost beyond the answer), ``all``, or a list.

    Names are separated by commas, and groups may be among them: ``free,mc_mean_head``.
    """
    groups = {
        "all": tuple(SIGNALS),
        "free": tuple(name for name, signal in SIGNALS.items() if signal.is_free),
    }
    result: list[str] = []
    for name in filter(None, map(str.strip, text.split(","))):
        if name not in groups and name not in SIGNALS:
            raise UserError(f"unknown signal '{name}'; there are free, all, {', '.join(SIGNALS)}")
        result += groups.get(name, (name,))
    if not result:
        raise UserError("no signal named; give free, all, or names separated by commas")
    return tuple(dict.fromkeys(result))


def needed(names: Sequence[str], most: Evidence) -> Evidence:
    """As much of the evidence ``most`` as these signals need."""
    needs = {SIGNALS[name].evidence for name in names}
    return replace(
        most,
        p_true=most.p_true and "p_true" in needs,
        samples=most.samples if "samples" in needs else 0,
        dropout=most.dropout if "dropout" in needs else None,
        laplace=most.laplace if "laplace" in needs else 0,
    )
