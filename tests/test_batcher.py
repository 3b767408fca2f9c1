"""Dynamic batching without a model: who waits, who is refused, and what a failure costs."""

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from abstain.router import Failed, Look
from abstain.serve.batcher import Batcher, Busy
from curate.errors import UserError
from curate.record import Row


class Model:
    """Answers with the question; stumbles over those that say so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.go.set()
        self.batches: list[list[str]] = []

    def check(self, row: Row) -> None:
        if row.question == "too long":
            raise UserError("1,000 tokens, and the model reads at most 100")
        if row.question == "no text":
            raise TypeError("TextInputSequence must be str")

    def packs(self, rows: Sequence[Row]) -> Iterator[list[tuple[int, Look]]]:
        self.go.wait(10)
        self.batches.append([row.question for row in rows])
        for number, row in enumerate(rows):
            if "memory" in row.question:
                raise MemoryError(row.question)
            yield [(number, Look("own", row.context, row.question, False, 0.9))]

    def own(self, rows: Sequence[Row]) -> list[Look]:
        return [look for pack in self.packs(rows) for _, look in pack]


def started(most_waiting: int = 8) -> tuple[Model, Batcher]:
    model = Model()
    batcher = Batcher(model, most_waiting)  # type: ignore[arg-type]
    batcher.start()
    return model, batcher


async def ask(batcher: Batcher, questions: Sequence[str], seconds: float = 10) -> list[Any]:
    until = time.monotonic() + seconds
    return await asyncio.gather(*(batcher.look(Row(q, "c"), until) for q in questions))


def told(found: list[Any]) -> list[str]:
    return [one.text if isinstance(one, Look) else f"failed: {one.why}" for one in found]


def test_what_waits_while_the_model_works_is_answered_together() -> None:
    model, batcher = started(40)
    model.go.clear()

    async def run() -> list[Any]:
        first = asyncio.ensure_future(ask(batcher, ["first"]))
        await asyncio.sleep(0.1)
        rest = asyncio.ensure_future(ask(batcher, [str(n) for n in range(20)]))
        await asyncio.sleep(0.1)
        assert batcher.waiting == 21
        model.go.set()
        return await first + await rest

    assert told(asyncio.run(run())) == ["first", *map(str, range(20))]
    assert [len(batch) for batch in model.batches] == [1, 16, 4]
    assert batcher.waiting == 0
    batcher.close(5)
    assert not batcher.alive


@pytest.mark.parametrize("bad", ["out of memory", "too long", "no text"])
def test_one_bad_question_costs_its_neighbours_nothing(bad: str) -> None:
    model, batcher = started()
    model.go.clear()

    async def run() -> list[Any]:
        asked = asyncio.ensure_future(ask(batcher, ["a", bad, "b"]))
        await asyncio.sleep(0.1)
        model.go.set()
        return await asked

    found = asyncio.run(run())
    assert told(found)[::2] == ["a", "b"] and isinstance(found[1], Failed)
    assert told(asyncio.run(ask(batcher, ["and later"]))) == ["and later"]
    batcher.close(5)


def test_there_is_no_room_beyond_the_queue_nor_time_beyond_the_deadline() -> None:
    model, batcher = started(2)
    asyncio.run(ask(batcher, ["warm"]))
    model.go.clear()

    async def run() -> None:
        one = asyncio.ensure_future(ask(batcher, ["being answered"]))
        await asyncio.sleep(0.1)
        two = asyncio.ensure_future(ask(batcher, ["waits", "waits too"]))
        await asyncio.sleep(0.1)
        with pytest.raises(Busy) as refused:
            batcher.admit(time.monotonic() + 100)
        assert refused.value.retry_after >= 1
        model.go.set()
        await asyncio.gather(one, two)

    asyncio.run(run())
    batcher.admit(time.monotonic() + 100)
    batcher._each = 3.0  # as if it had been slow lately
    batcher._running = 2
    with pytest.raises(Busy):
        batcher.admit(time.monotonic() + 5)
    batcher._running = 0
    batcher.admit(time.monotonic() + 1)  # an idle model is worth a try
    batcher.close(5)


def test_who_has_gone_or_is_too_late_is_not_answered() -> None:
    model, batcher = started()
    model.go.clear()

    async def run() -> None:
        first = asyncio.ensure_future(ask(batcher, ["first"]))
        await asyncio.sleep(0.1)
        gone = asyncio.ensure_future(ask(batcher, ["gone"]))
        late = asyncio.ensure_future(ask(batcher, ["late"], seconds=0.05))
        await asyncio.sleep(0.1)
        gone.cancel()
        await asyncio.sleep(0.05)
        model.go.set()
        await first
        await ask(batcher, ["after"])
        late.cancel()

    asyncio.run(run())
    assert model.batches == [["first"], ["after"]] and batcher.gone == 2
    batcher.close(5)


def test_what_was_taken_in_is_answered_when_it_closes() -> None:
    model, batcher = started()
    model.go.clear()

    async def run() -> list[Any]:
        asked = asyncio.ensure_future(ask(batcher, ["a", "b"]))
        await asyncio.sleep(0.1)
        closing = asyncio.ensure_future(asyncio.to_thread(batcher.close, 5))
        await asyncio.sleep(0.05)
        with pytest.raises(Busy):
            await batcher.look(Row("c", "c"), time.monotonic() + 5)
        model.go.set()
        await closing
        return await asked

    assert told(asyncio.run(run())) == ["a", "b"]
