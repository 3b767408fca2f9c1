"""What the server does with a question, from its coming in to the record of its decision."""

import asyncio
import hashlib
import hmac
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from abstain.cascade import Cascade
from abstain.decisions import DecisionLog, record
from abstain.queue import Item, Queue
from abstain.router import (
    Failed,
    Fetched,
    Outcome,
    OutOfTime,
    Threshold,
    Wanted,
    message,
    route,
)
from abstain.serve.batcher import Batcher
from abstain.serve.metrics import Metrics
from abstain.serve.model_thread import ModelThread
from curate.errors import UserError, os_error
from curate.record import Row
from curate.text import storable

_ELSEWHERE = 64  # questions that may wait for a retriever or a second model at once
QUEUE, DECISIONS, SECRET = "queue.sqlite", "decisions.jsonl", "secret"


@dataclass(frozen=True)
class Question:
    """What somebody asks."""

    text: str
    context: str = ""
    history: list[dict[str, str]] = field(default_factory=list)
    document: str = ""  # that the context is of
    id: str = ""  # the client's own: the same one is taken in once


@dataclass(frozen=True)
class Told:
    """What the asker is told, and the record of why."""

    text: str
    record: dict[str, Any]
    prompt_tokens: int
    completion_tokens: int


class Conflict(UserError):
    """An id that was used for another question."""


class NotAccepted(UserError):
    """A decision that could not be written down, and so was not made."""


class Service:
    """A cascade in service: batched, within time, its decisions logged and queued."""

    def __init__(
        self,
        cascade: Cascade,
        state: Path,
        queue: Queue,
        most_waiting: int,
        thread: ModelThread | None = None,
    ) -> None:
        """``state`` is a folder for the log of decisions and a secret that draws audits.

        ``thread`` is the one that has loaded the model.
        """
        self.cascade = cascade
        self.policy = cascade.policy
        self.queue = queue
        self.batcher = Batcher(cascade, most_waiting, thread)
        self.metrics = Metrics(self)
        self.log = DecisionLog(state / DECISIONS)
        self._secret = _secret(state)
        self.calibrated = cascade.threshold  # as `abstain calibrate` left it
        self.alarmed = False  # that audits refute the guarantee has been said
        # Apart from the threads that write: a retriever that hangs must not keep a question from
        # the queue.
        self._elsewhere = ThreadPoolExecutor(_ELSEWHERE, "elsewhere")

    @property
    def seconds(self) -> float:
        """What a question may take."""
        return self.policy.budget.seconds

    def tighten(self, value: float) -> None:
        """From now on only what passes a stricter threshold is answered, without a guarantee."""
        self.cascade.threshold = Threshold(value)

    def loosen(self) -> None:
        """Back to the calibrated threshold."""
        self.cascade.threshold = self.calibrated

    async def decide(self, question: Question) -> Told:
        """Decide a question; what goes to a person is in the queue when this returns.

        Raises `Busy` where there is no room or time, `UserError` where the queue or the log cannot
        be written: then nothing has been accepted.
        """
        started = time.monotonic()
        until = started + self.seconds
        self.batcher.admit(until)
        threshold = self.cascade.threshold  # one and the same from beginning to end
        question = _storable(question)
        row = Row(question.text, question.context, history=question.history)
        tokens = await asyncio.to_thread(self.cascade.check, row)
        outcome = await self._run(row, threshold, until)
        number = question.id or secrets.token_hex(10)
        said = message(self.policy, outcome, self.cascade.answerer.contract.abstention_phrase)
        spent = 1000 * (time.monotonic() - started)
        entry = record(question.text, said, outcome, threshold, spent, number)
        await asyncio.to_thread(self._keep, question, number, entry)
        self.metrics.decided(entry)
        return Told(said, entry, tokens, sum(look.tokens for look in outcome.looks))

    async def _run(self, row: Row, threshold: Threshold, until: float) -> Outcome:
        steps = route(self.policy, threshold, row.question, row.context)
        wanted = next(steps)
        while True:
            try:
                left = until - time.monotonic()
                found = await asyncio.wait_for(self._fetch(row, wanted, until), max(0.0, left))
                wanted = steps.send(found)
            except TimeoutError:
                return _thrown(steps, OutOfTime(f"not decided within {self.seconds:g} seconds"))
            except StopIteration as done:
                outcome: Outcome = done.value
                return outcome

    async def _fetch(self, row: Row, wanted: Wanted, until: float) -> Fetched:
        row = replace(row, context=wanted.context)
        if wanted.fetch == "answer":
            return await self.batcher.look(row, until)
        elsewhere = asyncio.get_running_loop().run_in_executor
        with self.metrics.fetching(wanted.fetch):
            if wanted.fetch == "retrieve":
                question, context = wanted.question, wanted.context
                return await elsewhere(self._elsewhere, self.cascade.find, question, context)
            return await elsewhere(self._elsewhere, self._second, row)

    def _second(self, row: Row) -> Fetched:
        try:
            return self.cascade.ask_second(row)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            # A model of somebody else's may answer in any form.
            return Failed(f"its answer cannot be read ({type(error).__name__}: {error})")

    def _audited(self, question: Question, number: str) -> bool:
        """A coin for each request; the same request falls the same way however often it comes.

        Who asks is not told, and cannot find out: another question falls anew.
        """
        request = "\x1f".join((number, question.text, question.context))
        drawn = hmac.digest(self._secret, request.encode(), hashlib.sha256)
        return int.from_bytes(drawn[:8], "big") < self.policy.audit_share * 2**64

    def _keep(self, question: Question, number: str, entry: dict[str, Any]) -> None:
        # The log first: whoever is told to come again must not find himself in the queue.
        audited = self._audited(question, number)
        try:
            self.log.append({**entry, "audited": audited})
        except UserError as error:
            raise NotAccepted(str(error)) from error
        escalated = entry["action"] == "escalate"
        if escalated or audited:
            item = Item(
                number,
                question.text,
                question.context,
                escalated,
                audited,
                1.0 if escalated else self.policy.audit_share,
                entry,
                self.cascade.hash,
                question.document,
                question.history,
            )
            if not self.queue.put(item):
                before = self.queue.get(number)
                asked = (question.text, question.context)
                if before is not None and (before.question, before.context) != asked:
                    raise Conflict(f"the id {number} was used for another question")


def _storable(question: Question) -> Question:
    """Every text of it as it may be tokenised, logged and stored."""
    history = [{storable(k): storable(v) for k, v in one.items()} for one in question.history]
    texts = (question.text, question.context), (question.document, question.id)
    (text, context), (document, number) = (tuple(map(storable, pair)) for pair in texts)
    return Question(text, context, history, document, number)


def _thrown(steps: Any, error: OutOfTime) -> Outcome:
    try:
        steps.throw(error)
    except StopIteration as done:
        outcome: Outcome = done.value
        return outcome
    raise AssertionError("a route that is out of time goes on")


def _secret(state: Path) -> bytes:
    """Draws who is audited: whoever asks cannot tell which questions will be looked at."""
    file = state / SECRET
    try:
        state.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            file.touch(mode=0o600)
            file.write_bytes(secrets.token_bytes(32))
        return file.read_bytes()
    except OSError as error:
        raise os_error("keep the service's secret", file, error) from error


def open_queue(state: Path, address: str | None) -> Queue:
    """The queue of a service: a file in its folder, or a data base of the team's."""
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{state}: cannot be written ({error.strerror})") from error
    return Queue(address or state / QUEUE)
