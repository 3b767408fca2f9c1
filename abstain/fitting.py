"""What validation fits and selects: the probe, the reason head, two calibrators."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from abstain import probe, reason, selection
from abstain.answer import Answer
from abstain.answerer import PROBE, Answerer
from abstain.bootstrap import intervals
from abstain.evidence import Evidence
from abstain.groups import context_groups
from abstain.metrics import Judged, brier, ece
from abstain.predict import answer_all, judge
from abstain.probe import ProbeFit
from abstain.reason import ReasonFit
from abstain.selection import Chosen
from abstain.signals import Array, available, matrix, needed
from curate.errors import UserError
from curate.record import Row


@dataclass(frozen=True)
class Fitted:
    """Everything that validation rows have decided, and the rows with their answers."""

    probe: ProbeFit | None
    reason: ReasonFit | None
    sufficient: Chosen  # P(the context suffices), on all rows
    correct: Chosen  # P(right), on the answered ones
    confidence: Array  # P(right) of all rows; of the answered ones, cross-fitted
    judged: Judged
    groups: list[str]
    evidence: Evidence  # what the calibrators need, and no more
    right_f1: float

    def details(self) -> dict[str, Any]:
        """What is stored with the calibrators, for whoever wants to know how they came about."""
        return {
            "probe": self.probe.to_json() if self.probe is not None else None,
            "reason_head": self.reason.to_json() if self.reason is not None else None,
            "selection": {
                "sufficient": self.sufficient.to_json(),
                "correct": self.correct.to_json(),
            },
            "reliability": self.reliability(),
        }

    def reliability(self) -> dict[str, Any]:
        """ECE and Brier score of the model's own confidence, and of the cross-fitted one."""
        answered = np.flatnonzero(self.judged.answered)
        right = self.judged.right[answered]
        groups = [self.groups[i] for i in answered]

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
    answerer: Answerer, rows: list[Row], names: Sequence[str], evidence: Evidence, right_f1: float
) -> Fitted:
    """Fit everything on validation ``rows``; the answerer has the probe from then on.

    ``names`` are the signals to choose from, as far as this model can give them.
    """
    groups = context_groups(rows)
    probe_fit = reason_fit = None
    if "probe" in names:
        hidden = _hidden_states(answerer, rows)
        labels = np.array([bool(row.sufficient) for row in rows], dtype=bool)
        if labels.any() and not labels.all():
            probe_fit = probe.fit(hidden, labels, groups)
            answerer.heads[PROBE] = probe_fit.probe.to(answerer.loaded.model.device)
        short = np.flatnonzero(~labels)
        reason_fit = reason.fit(
            hidden[short], [rows[i].reason for i in short], [groups[i] for i in short]
        )
        answerer.reason_head = None
        if reason_fit is not None:
            answerer.reason_head = reason_fit.head.to(answerer.loaded.model.device)
    answerer.gather(evidence)
    answers = answer_all(answerer, rows, "validation")
    if probe_fit is not None:  # what the probe says of rows that it was fitted on is too good
        answers = [
            replace(answer, probe_logit=float(logit))
            for answer, logit in zip(answers, probe_fit.logits, strict=True)
        ]
    offered = [name for name in available(answers) if name in names]
    return _choose(rows, answers, offered, groups, evidence, right_f1, probe_fit, reason_fit)


def _choose(
    rows: list[Row],
    answers: list[Answer],
    names: list[str],
    groups: list[str],
    evidence: Evidence,
    right_f1: float,
    probe_fit: ProbeFit | None,
    reason_fit: ReasonFit | None,
) -> Fitted:
    if not names:
        raise UserError("none of the signals asked for can be had from this model")
    values = matrix(rows, answers, names)
    refuse_not_finite(values, names, rows)
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
    confidence[answered] = correct.probability
    used = {*sufficient.calibrator.signals, *correct.calibrator.signals}
    return Fitted(
        probe_fit,
        reason_fit,
        sufficient,
        correct,
        confidence,
        judged,
        groups,
        needed(sorted(used), evidence),
        right_f1,
    )


def refuse_not_finite(values: Array, names: Sequence[str], rows: Sequence[Row]) -> None:
    """Raise `UserError` that names the signal and a row where a value is NaN or infinite."""
    for column, name in enumerate(names):
        bad = np.flatnonzero(~np.isfinite(values[:, column]))
        if len(bad):
            raise UserError(
                f"signal '{name}' is not finite on {len(bad)} of {len(rows)} rows, the first of "
                f"them {rows[bad[0]].id}; the model's weights are damaged or its numbers overflow"
            )


def _hidden_states(answerer: Answerer, rows: list[Row]) -> NDArray[np.float32]:
    found: dict[int, Any] = {}
    with tqdm(total=len(rows), desc="hidden states", unit="row") as bar:
        for pack in answerer.hidden_states(rows):
            found.update(pack)
            bar.update(len(pack))
    return np.stack([found[index] for index in range(len(rows))])
