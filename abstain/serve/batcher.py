"""Dynamic batching: whatever waits when the model is free is answered together.

One thread runs the model. Questions on one context form one pack, which reads the context once;
each is answered as soon as its pack is done, not its batch. The queue before it is bounded, and
whoever could not be served within his time is turned away at the door.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future, wait
from dataclasses import dataclass

from abstain.cascade import Cascade
from abstain.router import Failed, Look
from abstain.serve.model_thread import ModelThread
from curate.record import Row

log = logging.getLogger(__name__)

_BATCH = 16  # questions looked at together; a later one on a context waits no longer than for these


class Busy(Exception):
    """There is no room, or no time: come again after ``retry_after`` seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"busy; try again in {retry_after:.0f} seconds")
        self.retry_after = retry_after


@dataclass
class _Waiting:
    row: Row
    until: float  # by time.monotonic
    future: "asyncio.Future[Look | Failed]"

    def done(self, found: Look | Failed) -> None:
        def settle() -> None:
            if not self.future.done():  # else the client has gone
                self.future.set_result(found)

        self.future.get_loop().call_soon_threadsafe(settle)


class Batcher:
    """The run's own answers for many askers at once."""

    def __init__(
        self, cascade: Cascade, most_waiting: int, thread: ModelThread | None = None
    ) -> None:
        """``most_waiting`` questions may wait; the next one is refused as `Busy`.

        ``thread`` is the one that has loaded the model.
        """
        self._cascade = cascade
        self._most = most_waiting
        self._waiting: deque[_Waiting] = deque()
        self._change = threading.Condition()
        self._closing = False
        self._running = 0
        self._each = 0.0  # seconds a question has taken lately
        self.batches = self.questions = self.gone = 0
        self._thread = thread or ModelThread()
        self._answering: Future[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._answering = self._thread.do(self._run)

    @property
    def alive(self) -> bool:
        """Whether the model's thread runs."""
        return self._answering is not None and not self._answering.done()

    @property
    def waiting(self) -> int:
        """Questions that wait or are being answered."""
        return len(self._waiting) + self._running

    def wait_expected(self) -> float:
        """Seconds until a question that comes now would be answered, as things went lately."""
        return (self.waiting + 1) * self._each

    def admit(self, until: float) -> None:
        """Raise `Busy` where a new question finds no room, or could not be answered in time."""
        expected = self.wait_expected()
        if self._closing or len(self._waiting) >= self._most:
            raise Busy(max(1.0, expected / 2))
        if self.waiting and time.monotonic() + expected > until:
            raise Busy(max(1.0, expected - (until - time.monotonic())))

    async def look(self, row: Row, until: float) -> Look | Failed:
        """The model's answer, or why it gives none. Cancelled while it waits, it costs nothing."""
        entry = _Waiting(row, until, asyncio.get_running_loop().create_future())
        with self._change:
            if self._closing:
                raise Busy(1.0)
            self._waiting.append(entry)
            self._change.notify()
        return await entry.future

    def close(self, seconds: float) -> None:
        """Answer what waits, then stop."""
        with self._change:
            self._closing = True
            self._change.notify()
        if self._answering is not None:
            wait([self._answering], seconds)

    def _run(self) -> None:
        while (batch := self._next()) is not None:
            if not batch:
                continue
            started = time.monotonic()
            self._answer(batch)
            each = (time.monotonic() - started) / len(batch)
            self._each = each if not self._each else 0.8 * self._each + 0.2 * each
            self._running = 0

    def _next(self) -> list[_Waiting] | None:
        """What is to be answered next; None when there is nothing more to come."""
        with self._change:
            while not self._waiting and not self._closing:
                self._change.wait()
            if not self._waiting:
                return None
            batch: list[_Waiting] = []
            while self._waiting and len(batch) < _BATCH:
                entry = self._waiting.popleft()
                if entry.future.cancelled() or time.monotonic() > entry.until:
                    self.gone += 1  # nobody waits for this one any more
                else:
                    batch.append(entry)
            self._running = len(batch)
            return batch

    def _answer(self, batch: list[_Waiting]) -> None:
        self.batches += 1
        self.questions += len(batch)
        readable = [entry for entry in batch if self._readable(entry)]
        if not readable:
            return
        open_ = set(range(len(readable)))
        try:
            for pack in self._cascade.packs([entry.row for entry in readable]):
                for number, look in pack:
                    readable[number].done(look)
                    open_.discard(number)
        except Exception:  # whatever it is, the thread must live
            log.exception("the model failed on a batch of %d; they are asked alone", len(readable))
            for number in sorted(open_):
                self._alone(readable[number])

    def _readable(self, entry: _Waiting) -> bool:
        try:
            self._cascade.check(entry.row)
        except Exception as error:  # noqa: BLE001 - as above; it is told to who asked
            entry.done(Failed(str(error)))
            return False
        return True

    def _alone(self, entry: _Waiting) -> None:
        """One question must not cost its neighbours their answers."""
        try:
            [look] = self._cascade.own([entry.row])
            entry.done(look)
        except Exception as error:  # noqa: BLE001 - as above; it is told to who asked
            entry.done(Failed(f"{type(error).__name__}: {error}"))
