"""The queue over HTTP: what waits for people, and what they say."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.exceptions import HTTPException

from abstain.queue import Item, Queue, Reply, Status
from abstain.serve.keys import Key
from abstain.serve.service import Service
from curate.record import REASONS

Reason = Literal[
    "", "no_context", "irrelevant_context", "evidence_missing", "partial_evidence",
    "false_premise", "underspecified", "conflicting_context", "out_of_scope", "unlabelled",
]  # fmt: skip
assert set(Reason.__args__) - {""} == set(REASONS)  # type: ignore[attr-defined]  # noqa: S101


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Claim(_Body):
    """Take a question to answer it."""

    person: str = Field(min_length=1, max_length=200)
    id: str | None = Field(None, max_length=400)
    seconds: float = Field(900, ge=1, le=86_400)


class Answered(_Body):
    """What a person says of a question."""

    person: str = Field(min_length=1, max_length=200)
    sufficient: bool
    answers: list[str] = Field(default_factory=list, max_length=20)
    reason: Reason = ""
    comment: str = Field("", max_length=5000)

    @field_validator("answers")
    @classmethod
    def _told(cls, answers: list[str]) -> list[str]:
        return [text.strip() for text in answers if text.strip()]


class Rejected(_Body):
    """Close a question without an answer."""

    person: str = Field(min_length=1, max_length=200)
    why: str = Field(min_length=1, max_length=5000)


class Released(_Body):
    """Give a question back."""

    person: str = Field(min_length=1, max_length=200)


def add(app: FastAPI, service: Service, holder: Callable[..., Any]) -> None:
    """The addresses below ``/v1/queue``; all but the asker's own look are for people's keys."""
    queue: Queue = service.queue
    person = Annotated[Key, Depends(holder)]

    @app.get("/v1/queue", tags=["people"])
    async def waiting(
        _: person, status: Status = "waiting", limit: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> dict[str, Any]:
        """Questions of one status, the oldest first, and how many there are of each."""
        items = await asyncio.to_thread(queue.items, status, limit)
        counts = await asyncio.to_thread(queue.counts)
        return {"counts": counts, "items": [_shown(item) for item in items]}

    @app.post("/v1/queue/claim", tags=["people"])
    async def claim(body: Claim, _: person) -> dict[str, Any] | None:
        """The oldest question that nobody holds, or the one named; null where there is none."""
        item = await asyncio.to_thread(queue.claim, body.person, body.seconds, body.id)
        return _shown(item) if item is not None else None

    @app.post("/v1/queue/{number:path}/answer", tags=["people"])
    async def answer(number: str, body: Answered, _: person) -> dict[str, Any]:
        """Say whether the context holds the answer, and which."""
        reply = Reply(body.sufficient, tuple(body.answers), body.reason, body.comment)
        return _shown(await asyncio.to_thread(queue.answer, number, body.person, reply))

    @app.post("/v1/queue/{number:path}/reject", tags=["people"])
    async def reject(number: str, body: Rejected, _: person) -> dict[str, Any]:
        """Close it without an answer."""
        return _shown(await asyncio.to_thread(queue.reject, number, body.person, body.why))

    @app.post("/v1/queue/{number:path}/release", tags=["people"])
    async def release(number: str, body: Released, _: person) -> dict[str, str]:
        """Give it back."""
        await asyncio.to_thread(queue.release, number, body.person)
        return {"id": number}

    @app.get("/v1/queue/{number:path}", tags=["people"])
    async def one(number: str, _: person) -> dict[str, Any]:
        """One question, and the answer once there is one."""
        item = await asyncio.to_thread(queue.get, number)
        if item is None:
            raise HTTPException(404, f"there is no question {number} in the queue")
        return _shown(item)


def _shown(item: Item) -> dict[str, Any]:
    """Without what the model said, as long as nobody has answered: it would sway whoever does."""
    return item.to_json(hide_answer=item.reply is None)
