"""A run with its policy and all that this may look at: many questions through it at once."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from abstain import retrieve
from abstain.answer import Answer, Answering
from abstain.calibrator import Calibrator
from abstain.policy import RoutingPolicy
from abstain.predict import answer_all, confidences, head_declines
from abstain.retrieve import Retriever, RetrieverError
from abstain.router import (
    Failed,
    Fetched,
    Look,
    Outcome,
    Threshold,
    Wanted,
    route,
)
from abstain.signals import available, matrix
from curate.errors import UserError
from curate.record import Row

UNREACHABLE = Threshold(2.0)  # no confidence passes it: every look that a policy allows is taken


@dataclass
class Cascade:
    """What answers, what decides, and what else may be asked."""

    answerer: Answering
    policy: RoutingPolicy
    threshold: Threshold  # with its guarantee only where this covers the policy
    retriever: Retriever | None = None
    second: Answering | None = None
    second_calibrator: Calibrator | None = None

    def check(self, row: Row) -> None:
        """Raise `UserError` where a question with its context cannot be read."""
        self.answerer.check(row)

    def own(self, rows: Sequence[Row]) -> list[Look]:
        """The run's own answers; what its head alone declines is not generated."""
        started = time.perf_counter()
        answers = answer_all(self.answerer, rows, early=True)
        calibration = self.answerer.calibration
        confidence, sufficient = confidences(rows, answers, calibration)
        declined = head_declines(answers, calibration.decline_below if calibration else None)
        each = 1000 * (time.perf_counter() - started) / max(1, len(rows))
        looks = []
        for number, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            skipped = answer.skipped
            looks.append(
                _look(
                    "own",
                    row,
                    answer,
                    None if skipped else float(confidence[number]),
                    None if skipped else float(sufficient[number]),
                    bool(declined[number]),
                    each,
                )
            )
        return looks

    def ask_second(self, row: Row) -> Look | Failed:
        """The second model's answer; what it says in another form than wanted has failed."""
        assert self.second is not None  # noqa: S101 - a policy that asks it names it
        started = time.perf_counter()
        try:
            [answer] = answer_all(self.second, [row])
            confidence = self._of_second(row, answer)
        except UserError as error:
            return Failed(str(error))
        spent = 1000 * (time.perf_counter() - started)
        return _look("second", row, answer, confidence, None, False, spent)

    def _of_second(self, row: Row, answer: Answer) -> float | None:
        """P(right) of its answer; None as long as nobody has calibrated it with this policy."""
        calibrator = self.second_calibrator
        if calibrator is None:
            return None
        return float(calibrator.probability(matrix([row], [answer], calibrator.signals))[0])

    def find(self, question: str, context: str) -> Fetched:
        """More context, or why there is none."""
        assert self.retriever is not None  # noqa: S101 - a policy that retrieves names one
        try:
            return self.retriever.find(question, context)
        except RetrieverError as error:
            return Failed(str(error))

    def run(self, rows: Sequence[Row], explore: bool = False) -> list[Outcome]:
        """Outcomes in the order of the rows, all rows a step at a time.

        ``explore``: as if no answer passed, so that each row's outcome holds every look that it
        could come to. Which looks these are does not depend on the threshold, which only ends a
        row's way sooner.
        """
        threshold = UNREACHABLE if explore else self.threshold
        steps = [route(self.policy, threshold, row.question, row.context) for row in rows]
        wanted = {number: next(one) for number, one in enumerate(steps)}
        outcomes: dict[int, Outcome] = {}
        while wanted:
            found = self._fetch(rows, wanted)
            wanted = {}
            for number, thing in found.items():
                try:
                    wanted[number] = steps[number].send(thing)
                except StopIteration as done:
                    outcomes[number] = done.value
        return [outcomes[number] for number in range(len(rows))]

    def _fetch(self, rows: Sequence[Row], wanted: dict[int, Wanted]) -> dict[int, Fetched]:
        found: dict[int, Fetched] = {}
        own: dict[int, Row] = {}
        for number, one in wanted.items():
            row = replace(rows[number], context=one.context)
            if one.fetch == "retrieve":
                found[number] = self.find(one.question, one.context)
            elif one.fetch == "second_model":
                found[number] = self.ask_second(row)
            else:
                try:
                    self.check(row)
                    own[number] = row
                except UserError as error:
                    found[number] = Failed(str(error))
        found.update(zip(own, self.own(list(own.values())), strict=True) if own else ())
        return found


def _look(
    model: Literal["own", "second"],
    row: Row,
    answer: Answer,
    confidence: float | None,
    sufficient: float | None,
    declined: bool,
    milliseconds: float,
) -> Look:
    names = available([answer])
    values = matrix([row], [answer], names)[0] if names else np.zeros(0)
    return Look(
        model,
        row.context,
        answer.text,
        answer.abstained,
        confidence,
        sufficient,
        declined,
        answer.reason,
        dict(zip(names, map(float, values), strict=True)),
        milliseconds=milliseconds,
    )


def named(policy: RoutingPolicy, retriever: Retriever | None) -> str:
    """What names a policy with the documents that it retrieves from."""
    return policy.decisive(retriever.state if retriever is not None else "")


def assemble(answerer: Answering, policy: RoutingPolicy) -> Cascade:
    """A cascade by a policy; its guarantee stays only where that was certified with this policy."""
    second: Answering | None = None
    if policy.second_model is not None:
        from abstain.endpoint import Endpoint

        settings = policy.second_model
        second = Endpoint(settings.url, answerer.contract, settings.model, settings.seconds)
    found = Cascade(answerer, policy, Threshold(None), retrieve.make(policy.retriever), second)
    calibration = answerer.calibration
    if calibration is not None:
        name = named(policy, found.retriever)
        found.threshold = calibration.threshold_under(name)
        if calibration.routing == name:
            found.second_calibrator = calibration.second
    return found
