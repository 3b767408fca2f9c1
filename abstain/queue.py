"""The human queue: questions that people answer, durable, each taken in and answered once.

A question is in it because the policy escalated it, or because a coin put it there: of all
questions, whatever became of them, a share is audited, since a queue of hard cases alone tells
nothing of the easy ones. Each item keeps with which probability it got here. SQLite serves one
machine (in write-ahead mode, synchronised before a commit returns), PostgreSQL a team.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from curate.errors import UserError

Status = Literal["waiting", "claimed", "answered", "rejected", "expired"]
LEASE = 900.0  # seconds that a claim holds
_BUSY = 5.0  # seconds to wait for another process's write

_metadata = sa.MetaData()
_items = sa.Table(
    "items",
    _metadata,
    sa.Column("id", sa.String, primary_key=True),  # the request's: the same one comes in once
    sa.Column("created", sa.Float, nullable=False, index=True),
    sa.Column("status", sa.String, nullable=False, index=True),
    sa.Column("escalated", sa.Boolean, nullable=False),
    sa.Column("audited", sa.Boolean, nullable=False),
    sa.Column("inclusion", sa.Float, nullable=False),
    sa.Column("question", sa.Text, nullable=False),
    sa.Column("context", sa.Text, nullable=False),
    sa.Column("history", sa.JSON, nullable=False),
    sa.Column("decision", sa.JSON, nullable=False),
    sa.Column("policy", sa.String, nullable=False),
    sa.Column("document", sa.String, nullable=False),
    sa.Column("claimed_by", sa.String),
    sa.Column("lease_until", sa.Float),
    sa.Column("reply", sa.JSON),
    sa.Column("answered_by", sa.String),
    sa.Column("answered", sa.Float),
)


class QueueError(UserError):
    """The queue cannot be written or read now; the message says why."""


class Refused(UserError):
    """What was asked of an item is not possible in the state that it is in."""


@dataclass(frozen=True)
class Reply:
    """What a person says: does the context hold the answer, and which; or why not."""

    sufficient: bool
    answers: tuple[str, ...] = ()
    reason: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Item:
    """A question in the queue. ``inclusion`` is the probability with which it got here.

    ``audited`` items are a uniform sample of all questions: they alone certify anything.
    ``decision`` is the record of what was done with it, its model's answer and confidence included.
    """

    id: str
    question: str
    context: str
    escalated: bool
    audited: bool
    inclusion: float
    decision: dict[str, Any]
    policy: str = ""  # which frozen policy decided
    document: str = ""  # that the context is of, where the client told
    history: list[dict[str, str]] = field(default_factory=list)
    created: float = field(default_factory=time.time)
    status: Status = "waiting"
    claimed_by: str | None = None
    lease_until: float | None = None
    reply: Reply | None = None
    answered_by: str | None = None
    answered: float | None = None

    def to_json(self, hide_answer: bool = False) -> dict[str, Any]:
        """For a program; ``hide_answer`` leaves out what would sway whoever is to answer."""
        value = asdict(self)
        if hide_answer:
            del value["decision"], value["escalated"], value["audited"], value["inclusion"]
        return value


class Queue:
    """Items in a data base."""

    def __init__(self, where: str | Path) -> None:
        """``where``: a file for SQLite, or an address such as ``postgresql+psycopg://…``.

        Raises `QueueError` where it cannot be opened.
        """
        self.where = str(where)
        url = self.where if "://" in self.where else f"sqlite:///{Path(where).resolve()}"
        self._engine = sa.create_engine(url, pool_pre_ping=True)
        self._sqlite = self._engine.dialect.name == "sqlite"
        if self._sqlite:
            sa.event.listen(self._engine, "connect", _prepare)
            sa.event.listen(self._engine, "begin", _begin)
            if "://" not in self.where:
                Path(where).resolve().parent.mkdir(parents=True, exist_ok=True)
        with self._changing("open it") as run:
            _metadata.create_all(run)

    def put(self, item: Item) -> bool:
        """Take an item in; it is on the disk when this returns. False where it is there already."""
        values = {**asdict(item), "reply": None}
        dialect = sqlite if self._sqlite else postgresql
        added = dialect.insert(_items).values(values).on_conflict_do_nothing()
        with self._changing("take a question in") as run:
            return bool(run.execute(added.returning(_items.c.id)).first())

    def get(self, number: str) -> Item | None:
        """One item."""
        with self._changing("read it", writes=False) as run:
            found = run.execute(sa.select(_items).where(_items.c.id == number)).first()
        return _item(found) if found is not None else None

    def items(
        self,
        status: Status | None = None,
        limit: int | None = None,
        audited_under: str | None = None,
    ) -> list[Item]:
        """Items, the oldest first; of the uniform audits alone those of one policy, if named."""
        asked = sa.select(_items).order_by(_items.c.created, _items.c.id).limit(limit)
        if status is not None:
            asked = asked.where(_now() == status)
        if audited_under is not None:
            asked = asked.where(_items.c.audited, _items.c.policy == audited_under)
        with self._changing("read it", writes=False) as run:
            return [_item(found) for found in run.execute(asked)]

    def counts(self) -> dict[str, int]:
        """How many there are of each status."""
        asked = sa.select(_now().label("present"), sa.func.count()).group_by("present")
        with self._changing("read it", writes=False) as run:
            return {str(status): int(count) for status, count in run.execute(asked)}

    def claim(self, person: str, lease: float = LEASE, number: str | None = None) -> Item | None:
        """The oldest item that nobody holds (or the one asked for), held for ``lease`` seconds.

        None where there is none. Two people never hold the same one.
        """
        now = time.time()
        chosen = sa.select(_items.c.id).where(_now() == "waiting")
        if number is not None:
            chosen = chosen.where(_items.c.id == number)
        chosen = chosen.order_by(_items.c.created, _items.c.id).limit(1)
        if not self._sqlite:  # SQLite has one writer at a time, and needs no lock on a row
            chosen = chosen.with_for_update(skip_locked=True)
        held = {"status": "claimed", "claimed_by": person, "lease_until": now + lease}
        update = _items.update().where(_items.c.id.in_(chosen)).values(held).returning(*_items.c)
        with self._changing("claim a question") as run:
            found = run.execute(update).first()
        return _item(found) if found is not None else None

    def answer(self, number: str, person: str, reply: Reply) -> Item:
        """Answer an item. Raises `Refused` where it is closed, or another person holds it."""
        if reply.sufficient and not any(text.strip() for text in reply.answers):
            raise Refused("an answer is missing: the context is said to hold one")
        return self._close(number, person, "answered", asdict(reply))

    def reject(self, number: str, person: str, why: str) -> Item:
        """Close an item without an answer: it makes no sense, or is nobody's business here."""
        return self._close(number, person, "rejected", {"sufficient": False, "comment": why})

    def release(self, number: str, person: str) -> None:
        """Give back what one holds."""
        given_back = {"status": "waiting", "claimed_by": None, "lease_until": None}
        held = (_items.c.status == "claimed") & (_items.c.claimed_by == person)
        update = _items.update().where(_items.c.id == number, held).values(given_back)
        with self._changing("give a question back") as run:
            run.execute(update)

    def expire(self, older: float) -> int:
        """Close what has waited longer than so many seconds, and is held by nobody."""
        stale = (_now() == "waiting") & (_items.c.created < time.time() - older)
        update = _items.update().where(stale).values(status="expired")
        with self._changing("expire questions") as run:
            return int(run.execute(update).rowcount)

    def _close(self, number: str, person: str, status: Status, reply: dict[str, Any]) -> Item:
        held = (_items.c.status == "claimed") & (_items.c.claimed_by == person)
        mine = sa.or_(_now() == "waiting", held)
        closed = {"status": status, "reply": reply, "answered_by": person, "answered": time.time()}
        update = _items.update().where(_items.c.id == number, mine).values(closed)
        with self._changing("close a question") as run:
            found = run.execute(update.returning(*_items.c)).first()
        if found is not None:
            return _item(found)
        there = self.get(number)
        if there is None:
            raise Refused(f"there is no question {number} in the queue")
        if there.status == "claimed":
            raise Refused(f"question {number} is held by {there.claimed_by}; claim another one")
        raise Refused(f"question {number} is {there.status} already")

    @contextmanager
    def _changing(self, what: str, writes: bool = True) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect().execution_options(writes=writes) as run, run.begin():
                yield run
        except sa.exc.SQLAlchemyError as error:
            cause = str(getattr(error, "orig", None) or error).splitlines()[0]
            raise QueueError(f"{_shown(self.where)}: cannot {what}: {cause}") from error


def _now() -> sa.ColumnElement[str]:
    """The status of an item at this moment: what nobody holds any more waits again."""
    lapsed = (_items.c.status == "claimed") & (_items.c.lease_until < time.time())
    return sa.case((lapsed, sa.literal("waiting")), else_=_items.c.status)


def _shown(where: str) -> str:
    """An address without its password."""
    return sa.make_url(where).render_as_string(hide_password=True) if "://" in where else where


def _prepare(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we begin transactions ourselves, below
    for setting in (
        "journal_mode = WAL",  # readers do not wait for the writer
        "synchronous = FULL",  # what is committed survives a power cut
        f"busy_timeout = {int(1000 * _BUSY)}",
    ):
        connection.execute(f"PRAGMA {setting}")


def _begin(run: sa.Connection) -> None:
    # What began as a read could not wait for another writer when it turns into a write.
    writes = run.get_execution_options().get("writes", True)
    run.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _item(found: sa.Row[Any]) -> Item:
    values = dict(found._mapping)
    reply = values.pop("reply")
    if reply is not None:
        reply = Reply(**{**reply, "answers": tuple(reply.get("answers", ()))})
    return Item(**values, reply=reply)
