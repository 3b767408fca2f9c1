"""What a threshold is chosen and certified on: the run's answers alone, or a policy as a whole.

A policy looks at a question several times (what was given, what was retrieved, a second model), and
answers with the first look that passes. Which looks there are does not depend on the threshold
(`Cascade.run`), so that one exploration tells for every threshold what would have been answered.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from abstain import selection
from abstain.answer import Answering
from abstain.calibration import Calibration
from abstain.calibrator import Calibrator
from abstain.cascade import Cascade, assemble, named
from abstain.fitting import Fitted
from abstain.groups import fold_groups
from abstain.metrics import is_right
from abstain.policy import RoutingPolicy
from abstain.predict import answer_all, head_declines, judge
from abstain.router import SECOND, Look, Outcome, Threshold
from abstain.signals import Array, matrix
from abstain.threshold import Flags, StagedUnits, Units
from curate.errors import UserError
from curate.record import Row

MINIMUM_SECOND = 20  # answers of a second model, to calibrate it on


class Measured(Protocol):
    """What of validation decides, and how calibration rows come out."""

    @property
    def routing(self) -> str:
        """Names the policy (`RoutingPolicy.decisive`)."""
        ...

    @property
    def second(self) -> Calibrator | None:
        """P(right) of a second model's answers."""
        ...

    def validation(self, rows: Flags) -> Units | StagedUnits:
        """Units of the chosen validation rows."""
        ...

    def answered(self, rows: list[Row]) -> Units | StagedUnits:
        """Units of other rows, answered now."""
        ...


@dataclass
class ThresholdAlone:
    """The run's own answers, each judged by its confidence."""

    answerer: Answering
    fitted: Fitted
    routing: str = ""
    second: Calibrator | None = None

    def validation(self, rows: Flags) -> Units:
        """With cross-fitted confidences."""
        judged = self.fitted.judged
        return Units(self.fitted.ranked[rows], judged.answered[rows], judged.right[rows])

    def answered(self, rows: list[Row]) -> Units:
        """With the confidence that the calibrator gives them."""
        fitted = self.fitted
        answers = answer_all(self.answerer, rows, "calibration")
        values = matrix(rows, answers, fitted.correct.calibrator.signals)
        confidence = fitted.correct.calibrator.probability(values)
        declined = head_declines(answers, fitted.decline_below)
        said_no = [a.abstained or bool(head) for a, head in zip(answers, declined, strict=True)]
        judged = judge(rows, answers, confidence, confidence, fitted.right_f1, said_no)
        return Units(confidence, judged.answered, judged.right)


@dataclass
class WholePolicy:
    """A policy with its retriever and second model, from question to answer."""

    cascade: Cascade
    right_f1: float
    rows: dict[str, Row]  # all of them, to find parents among
    explored: StagedUnits = field(init=False)

    @property
    def routing(self) -> str:
        """Names the policy, its documents and its models."""
        return named(self.cascade.policy, self.cascade.retriever)

    @property
    def second(self) -> Calibrator | None:
        """P(right) of the second model's answers."""
        return self.cascade.second_calibrator

    def fit(self, validation: Sequence[Row]) -> None:
        """Explore validation; where a second model is asked, calibrate its answers on it."""
        outcomes = self.cascade.run(validation, explore=True)
        if self.cascade.second is not None:
            self.cascade.second_calibrator = self._of_second(validation, outcomes)
        self.explored = self._units(validation, outcomes)

    def validation(self, rows: Flags) -> StagedUnits:
        """Of the chosen rows of those that it was fitted on."""
        return self.explored.of(rows)

    def answered(self, rows: list[Row]) -> StagedUnits:
        """Explored now."""
        return self._units(rows, self.cascade.run(rows, explore=True))

    def _of_second(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> Calibrator | None:
        answered = [
            (row, look)
            for row, outcome in zip(rows, outcomes, strict=True)
            for look in outcome.looks
            if look.model == SECOND and not look.abstained
        ]
        if len(answered) < MINIMUM_SECOND:
            raise UserError(
                f"the second model answered {len(answered)} questions of validation, and at least "
                f"{MINIMUM_SECOND} are needed to tell how far to trust it; let more reach it, or "
                "leave it out"
            )
        looks = [look for _, look in answered]
        names = sorted(set.intersection(*(set(look.signals) for look in looks)))
        values = np.array([[look.signals[name] for name in names] for look in looks])
        right = np.array([self._right(row, look) for row, look in answered], dtype=bool)
        groups, _ = fold_groups([row for row, _ in answered])
        return selection.choose(values, right, names, groups).calibrator

    def _units(self, rows: Sequence[Row], outcomes: Sequence[Outcome]) -> StagedUnits:
        most = max((len(outcome.looks) for outcome in outcomes), default=0)
        confidence = np.full((len(rows), most), -np.inf)
        right = np.zeros((len(rows), most), dtype=bool)
        for unit, (row, outcome) in enumerate(zip(rows, outcomes, strict=True)):
            for number, look in enumerate(outcome.looks):
                sure = self._confidence(look)
                if look.may_answer and not look.said_no and sure is not None:
                    confidence[unit, number] = sure
                    right[unit, number] = self._right(row, look)
        return StagedUnits(confidence, right)

    def _confidence(self, look: Look) -> float | None:
        """The look's own, or what the calibrator fitted since says of the second model's."""
        calibrator = self.cascade.second_calibrator
        if look.model != SECOND or calibrator is None:
            return look.confidence
        values: Array = np.array([[look.signals[name] for name in calibrator.signals]])
        return float(calibrator.probability(values)[0])

    def _right(self, row: Row, look: Look) -> bool:
        """Whether an answer is one of those accepted.

        What was retrieved may hold what a row's own context was robbed of: then the answers of the
        row that it was made from count, if the question is the same. For a question that people
        found unanswerable none is known, and every answer counts as wrong.
        """
        accepted = list(row.answers) if row.sufficient else []
        parent = self.rows.get(row.parent_id)
        if not accepted and look.retrieved and parent is not None:
            accepted = list(parent.answers) if parent.question == row.question else []
        return is_right(look.text, accepted, self.right_f1)


def policy_as_a_whole(
    answerer: Answering,
    fitted: Fitted,
    policy: RoutingPolicy,
    validation: Sequence[Row],
    splits: Mapping[str, Sequence[Row]],
) -> WholePolicy:
    """A policy fitted on validation, with what a run's calibration has just fitted."""
    provisional = Calibration(
        fitted.sufficient.calibrator,
        fitted.correct.calibrator,
        Threshold(None),
        fitted.right_f1,
        fitted.evidence,
        fitted.decline_below,
        {},
    )
    answerer.calibration = provisional
    cascade = assemble(answerer, policy)
    answerer.calibration = replace(provisional, routing=named(policy, cascade.retriever))
    rows = {row.id: row for members in splits.values() for row in members}
    found = WholePolicy(cascade, fitted.right_f1, rows)
    found.fit(validation)
    return found
