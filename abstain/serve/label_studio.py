"""Annotators' answers as they are made: Label Studio's webhook, mounted by the server.

What it misses, `abstain queue pull` brings.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from abstain import queue_label_studio
from abstain.queue import Queue
from curate.annotate import annotations
from curate.annotate.label_studio import config, pull, webhook
from curate.annotate.label_studio.pull import Pulled
from curate.annotate.label_studio.server import Server

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger(__name__)

PATH = "/webhooks/label-studio"


class Receiver:
    """Takes events in, and what they decide into the queue."""

    def __init__(self, queue: Queue, server: Server, project: str, out: Path) -> None:
        """``out`` is the table of annotations; what comes is kept in the journal beside it."""
        self._queue = queue
        self._server = server
        self._out = out
        self._news = asyncio.Event()
        self._secret = secrets.token_urlsafe(24)
        self._project = server.project(project)
        where = f"{server.address}/projects/{self._project.id}"
        self._controls = config.readable(self._project.label_config, where)
        self._people = server.people()

    def handler(self) -> "Callable[[Request], Awaitable[Response]]":
        """For the address that Label Studio is told."""
        journal = pull.beside(self._out)
        return webhook.handler(journal, self._server.address, self._secret, self._news.set)

    def registered(self, target: str) -> AbstractContextManager[None]:
        """Have Label Studio send its events here as long as this lasts."""
        header = {webhook.HEADER: self._secret}
        return self._server.webhook(self._project.id, target, header, webhook.ACTIONS)

    async def keep_taking_in(self) -> None:
        """As long as the server runs, whenever there is a pause."""
        await webhook.in_pauses(self._news, self._take_in)

    def _take_in(self) -> None:
        try:
            pull.write(self._out, self._controls, self._people, Pulled())
            queue_label_studio.take_in(self._queue, annotations.read(self._out))
        except Exception:  # what came is in the journal; the next event tries again
            log.exception("what annotators said could not be taken in")
