"""A run with its policy and all that this may look at: many questions through it at once."""

import time
from collections.abc import Iterator, Sequence
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
from curate.record import Row, digest

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
    hash: str = ""  # of all that decides: weights, prompt, calibration, policy, documents

    def check(self, row: Row) -> int:
        """Tokens of a question's prompt; raises `UserError` where it cannot be read."""
        return self.answerer.check(row)

    def own(self, rows: Sequence[Row]) -> list[Look]:
        """The run's own answers; what its head alone declines is not generated."""
        found = dict(pair for pack in self.packs(rows) for pair in pack)
        return [found[number] for number in range(len(rows))]

    def packs(self, rows: Sequence[Row]) -> Iterator[list[tuple[int, Look]]]:
        """The same with the rows' numbers, as they come: rows of one context together."""
        calibration = self.answerer.calibration
        started = time.perf_counter()
        for pack in self.answerer.answer(rows, early=True):
            members, answers = [rows[number] for number, _ in pack], [one for _, one in pack]
            confidence, sufficient = confidences(members, answers, calibration)
            declined = head_declines(answers, calibration.decline_below if calibration else None)
            each = 1000 * (time.perf_counter() - started) / len(pack)
            yield [
                (
                    number,
                    _look(
                        "own",
                        row,
                        answer,
                        None if answer.skipped else float(sure),
                        None if answer.skipped else float(suffices),
                        bool(no),
                        each,
                    ),
                )
                for (number, answer), row, sure, suffices, no in zip(
                    pack, members, confidence, sufficient, declined, strict=True
                )
            ]
            started = time.perf_counter()

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
            for number, thing in found.items():
                if explore and isinstance(thing, Failed) and wanted[number].fetch != "answer":
                    raise UserError(
                        f"{wanted[number].fetch}: {thing.why}; a policy is certified with all that "
                        "it asks, so let this answer, and calibrate again"
                    )
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
        tokens=0 if answer.skipped else answer.tokens,
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
    name = named(policy, found.retriever)
    found.hash = digest(answerer.hash(), name)
    if calibration is not None:
        found.threshold = calibration.threshold_under(name)
        if calibration.routing == name:
            found.second_calibrator = calibration.second
    return found
