"""What validation fits and selects: the probe, the reason head, two calibrators."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abstain import probe, reason, selection
from abstain.answer import Answer, Answering
from abstain.answerer import PROBE, Answerer
from abstain.evidence import Evidence
from abstain.groups import (
    MINIMUM_DOCUMENTS,
    by_context,
    draw_contexts,
    fold_groups,
    resampling_groups,
)
from abstain.laplace import Laplace, fit_laplace
from abstain.metrics import Judged, brier, ece
from abstain.predict import answer_all, head_declines, judge
from abstain.probe import ProbeFit
from abstain.reason import ReasonFit
from abstain.selection import Chosen
from abstain.signals import Array, available, matrix, needed, refuse_not_finite
from curate.bootstrap import intervals
from curate.errors import UserError
from curate.record import Row

_PROBES = ("probe", "mc_std_probe")
Fits = tuple[ProbeFit | None, ReasonFit | None, Laplace | None]
MINIMUM_RIGHT = 20  # answers, before the head may decline without one
LAPLACE_ROWS = 400  # of train, for the curvature; it is scaled up to all of them


@dataclass(frozen=True)
class Fitted:
    """Everything that validation rows have decided, and the rows with their answers."""

    probe: ProbeFit | None
    reason: ReasonFit | None
    laplace: Laplace | None
    sufficient: Chosen  # P(the context suffices), on all rows
    correct: Chosen  # P(right), on the answered ones
    confidence: Array  # P(right) of all rows; of the answered ones, cross-fitted
    ranked: Array  # the final calibrator's values, in the order of the cross-fitted ones
    judged: Judged
    resampled: list[str]  # what a bootstrap of the rows draws
    evidence: Evidence  # what the calibrators need, and no more
    decline_below: float | None  # of the head's logit; None without a head
    right_f1: float
    across_documents: bool  # whether cross-validation kept documents together, or contexts only
    left_out: dict[str, str] = field(default_factory=dict)  # signals asked for, and why not offered

    def details(self) -> dict[str, Any]:
        """What is stored with the calibrators, for whoever wants to know how they came about."""
        return {
            "probe": self.probe.to_json() if self.probe is not None else None,
            "reason_head": self.reason.to_json() if self.reason is not None else None,
            "selection": {
                "sufficient": self.sufficient.to_json(),
                "correct": self.correct.to_json(),
            },
            "cross_validated_over": "documents" if self.across_documents else "contexts",
            "left_out": self.left_out,
            "reliability": self.reliability(),
        }

    def reliability(self) -> dict[str, Any]:
        """ECE and Brier score of the model's own confidence, and of the cross-fitted one."""
        answered = np.flatnonzero(self.judged.answered)
        right = self.judged.right[answered]
        groups = [self.resampled[i] for i in answered]

        def measured(confidence: Array) -> dict[str, Any]:
            return intervals(
                lambda rows: {
                    "ece": ece(confidence[rows], right[rows]),
                    "brier": brier(confidence[rows], right[rows]),
                },
                groups,
            )

        return {
            "before": measured(self.judged.confidence[answered]),
            "after": measured(self.confidence[answered]),
        }


def fit(
    answerer: Answering,
    rows: list[Row],
    train: Sequence[Row],
    names: Sequence[str],
    evidence: Evidence,
    right_f1: float,
) -> Fitted:
    """Fit everything on validation ``rows``; the answerer has probe and the rest from then on.

    ``names`` are the signals to choose from, as far as this model can give them. A Laplace
    approximation, if one is asked for, takes its curvature from ``train`` rows.
    """
    groups, across_documents = fold_groups(rows)
    fits: Fits = (None, None, None)
    if isinstance(answerer, Answerer):
        fits = _fit_heads(answerer, rows, train, names, evidence, groups)
        answers = _answers(answerer, rows, evidence, fits[0])
    else:  # a server shows nothing that a probe could read
        answerer.gather(evidence)
        answers = answer_all(answerer, rows, "validation")
    offered = [name for name in available(answers) if name in names]
    left_out = {name: "this model cannot give it" for name in names if name not in offered}
    if not across_documents and set(offered) - set(_PROBES):
        # Hundreds of weights learn what is peculiar to a document, and contexts of the same one
        # cannot give that away: on other documents such a probe has fallen behind the head.
        why = f"validation has fewer than {MINIMUM_DOCUMENTS} documents to tell its worth by"
        left_out |= {name: why for name in offered if name in _PROBES}
        offered = [name for name in offered if name not in _PROBES]
    fitted = _choose(rows, answers, offered, groups, across_documents, evidence, right_f1, fits)
    return replace(fitted, left_out=left_out)


def _fit_heads(
    answerer: Answerer,
    rows: list[Row],
    train: Sequence[Row],
    names: Sequence[str],
    evidence: Evidence,
    groups: list[str],
) -> Fits:
    """What is read off a model's hidden states and gradients; the answerer has it from then on."""
    probe_fit = reason_fit = None
    # What an earlier calibration has fitted goes, whether or not this one fits its like.
    answerer.heads.pop(PROBE, None)
    answerer.reason_head = answerer.laplace = None
    device = answerer.loaded.model.device
    labels = np.array([bool(row.sufficient) for row in rows], dtype=bool)
    short = np.flatnonzero(~labels)
    reasons = [rows[i].reason for i in short]
    probed = bool(set(_PROBES) & set(names))
    if probed or len(reason.learnable(reasons)) > 1:
        hidden = _hidden_states(answerer, rows)
        if probed and labels.any() and not labels.all():
            probe_fit = probe.fit(hidden, labels, groups)
            answerer.heads[PROBE] = probe_fit.probe.to(device)
        reason_fit = reason.fit(hidden[short], reasons, [groups[i] for i in short])
        if reason_fit is not None:
            answerer.reason_head = reason_fit.head.to(device)
    if evidence.laplace:
        answerer.laplace = _laplace(answerer, rows, train, evidence.laplace)
    return probe_fit, reason_fit, answerer.laplace


def _answers(
    answerer: Answerer, rows: list[Row], evidence: Evidence, probe_fit: ProbeFit | None
) -> list[Answer]:
    """Answers to validation rows; what the probe says of one comes from a fit without its group.

    What it says of rows that it was fitted on would be too good.
    """
    folds = probe_fit.folds if probe_fit is not None else []
    names = [f"{PROBE} without fold {number}" for number in range(len(folds))]
    for name, (head, _) in zip(names, folds, strict=True):
        answerer.heads[name] = head.to(answerer.loaded.model.device)
    try:
        answerer.gather(evidence)
        answers = answer_all(answerer, rows, "validation")
    finally:
        for name in names:
            del answerer.heads[name]
    for name, (_, left_out) in zip(names, folds, strict=True):
        for number in left_out:
            answers[number] = _without_own_fit(answers[number], name)
    if probe_fit is not None:
        answers = [
            replace(answer, probe_logit=float(logit))
            for answer, logit in zip(answers, probe_fit.logits, strict=True)
        ]
    return answers


def _without_own_fit(answer: Answer, name: str) -> Answer:
    """The probe's samples under dropout replaced by those of the head with this name."""
    if answer.dropout is None:
        return answer
    logits = {**answer.dropout.head_logits, PROBE: answer.dropout.head_logits[name]}
    return replace(answer, dropout=replace(answer.dropout, head_logits=logits))


def _choose(
    rows: list[Row],
    answers: list[Answer],
    names: list[str],
    groups: list[str],
    across_documents: bool,
    evidence: Evidence,
    right_f1: float,
    fits: Fits,
) -> Fitted:
    if not names:
        raise UserError("none of the signals asked for can be had from this model")
    values = matrix(rows, answers, names)
    own = np.exp([answer.mean_log_likelihood for answer in answers])
    said_no = [answer.abstained for answer in answers]
    judged = judge(rows, answers, own, own, right_f1, said_no)
    sufficient = selection.choose(values, judged.sufficient, names, groups)
    answered = np.flatnonzero(judged.answered)
    correct = selection.choose(
        values[answered], judged.right[answered], names, [groups[i] for i in answered]
    )
    columns = [names.index(name) for name in correct.calibrator.signals]
    confidence = correct.calibrator.probability(values[:, columns])
    unseen = confidence.copy()
    unseen[answered] = correct.probability
    ranked = confidence.copy()
    ranked[answered] = on_the_scale_of(confidence[answered], correct.probability)
    decline_below = _decline_below(answers, judged)
    judged = replace(judged, answered=judged.answered & ~head_declines(answers, decline_below))
    used = {*sufficient.calibrator.signals, *correct.calibrator.signals}
    return Fitted(
        *fits,
        sufficient,
        correct,
        unseen,
        ranked,
        judged,
        resampling_groups(rows)[0],
        needed(sorted(used), evidence),
        decline_below,
        right_f1,
        across_documents,
    )


def on_the_scale_of(final: Array, unseen: Array) -> Array:
    """Values of the final fit [rows], put in the order of the cross-fitted ones.

    A threshold is a number on the final fit's scale, and the fits without a fold have others; how
    well it ranks rows that it has not seen, they alone can tell. Ties stay ties, and take the least
    of the values that fall to them: a threshold there lets all of them pass.
    """
    from scipy.stats import rankdata

    places = rankdata(unseen, "min").astype(int) - 1
    return np.asarray(np.sort(final)[places])


def _decline_below(answers: Sequence[Answer], judged: Judged) -> float | None:
    """The least logit of the sufficiency head at which an answer was right.

    Below it, no validation question was worth an answer: what it declines is not generated. Of n
    right answers to come, one in n + 1 is expected to be lost by it; None where that is too many.
    """
    logits = [answers[i].head_logit for i in np.flatnonzero(judged.right).tolist()]
    known = [logit for logit in logits if logit is not None]
    return min(known) if len(known) >= MINIMUM_RIGHT else None


def _laplace(answerer: Answerer, rows: list[Row], train: Sequence[Row], blocks: int) -> Laplace:
    """Curvature from whole contexts of train, drawn by seed, until there are enough rows."""
    drawn = list(chain.from_iterable(draw_contexts(train, LAPLACE_ROWS, seed=13)))
    gradients = answerer.gradients(blocks)
    ordered = list(chain.from_iterable(by_context(rows).values()))
    labels = np.array([bool(row.sufficient) for row in ordered], dtype=bool)

    def traces(some: list[Row], what: str) -> Any:
        found = answerer.traces(some, gradients)
        return tqdm(found, total=len(some), desc=f"Laplace, {what}", unit="row")

    return fit_laplace(
        gradients, traces(drawn, "train"), len(train), traces(ordered, "validation"), labels
    )


def _hidden_states(answerer: Answerer, rows: list[Row]) -> NDArray[np.float32]:
    found: dict[int, Any] = {}
    with tqdm(total=len(rows), desc="hidden states", unit="row") as bar:
        for pack in answerer.hidden_states(rows):
            found.update(pack)
            bar.update(len(pack))
    states = np.stack([found[index] for index in range(len(rows))])
    refuse_not_finite(states.sum((1, 2), dtype=np.float64), "a hidden state", rows)
    return states
