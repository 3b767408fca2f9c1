"""Receive annotations as they are made: one handler, in an app of its own or mounted by another.

Label Studio delivers while the annotator waits, gives up after a second and never tries again, so
an event is kept in the journal and nothing else done before the answer. What is missed is caught by
the next pull.
"""

import asyncio
import hmac
import json
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate.annotate.label_studio import config, journal, pull, server
from curate.annotate.label_studio.pull import Pulled

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HEADER = "X-Grounded-Abstain"  # with a secret that only the server was told
ACTIONS = ("ANNOTATION_CREATED", "ANNOTATION_UPDATED", journal.DELETED)
_PAUSE = 1.0  # seconds without an event before the table is written anew
_LARGEST = 16 * 2**20  # bytes of an event
Handler = Callable[["Request"], Awaitable["Response"]]


def handler(journal_file: Path, address: str, secret: str, arrived: Callable[[], None]) -> Handler:
    """The handler of an event: it is in the journal when the server hears that it was taken.

    Answers 401 to whoever does not know the secret, and 400 to what is no event.
    """
    from starlette.responses import Response

    async def receive(request: "Request") -> "Response":
        if not hmac.compare_digest(request.headers.get(HEADER, "").encode(), secret.encode()):
            return Response("not from our Label Studio", 401)
        if int(request.headers.get("content-length") or 0) > _LARGEST:
            return Response("too large", 413)
        try:
            payload = json.loads(await request.body())
            _check(payload)
        except (ValueError, KeyError, TypeError) as error:
            return Response(f"not an event of annotations ({error})", 400)
        await asyncio.to_thread(journal.append, journal_file, journal.EVENT, [payload], address)
        arrived()
        return Response(status_code=204)

    return receive


def _check(payload: Any) -> None:
    """Raises where the journal could not be read with this in it."""
    if payload["action"] == journal.DELETED:
        _ = [one["id"] for one in payload["annotations"]]
    elif payload["action"] in ACTIONS:
        _ = payload["annotation"]["id"], payload["annotation"]["updated_at"]
        _ = payload["task"]["id"], payload["project"]["id"]
    else:
        raise ValueError(f"action '{payload['action']}'")


def app(receive: Handler, background: Callable[[], Awaitable[None]]) -> "Starlette":
    """The receiver as an app of its own, with a task that runs as long as it does."""
    from starlette.applications import Starlette
    from starlette.routing import Route

    @asynccontextmanager
    async def lifespan(_: "Starlette") -> AsyncIterator[None]:
        running = asyncio.ensure_future(background())
        yield
        running.cancel()

    return Starlette(routes=[Route("/", receive, methods=["POST"])], lifespan=lifespan)


async def in_pauses(news: asyncio.Event, work: Callable[[], None]) -> None:
    """Do the work, in a thread, after each burst of news; never ends by itself."""
    while True:
        await news.wait()
        while news.is_set():
            news.clear()
            await asyncio.sleep(_PAUSE)
        await asyncio.to_thread(work)


def serve(name: str, out: Path, address: str, host: str, port: int, target: str | None) -> None:
    """Register with the server, receive until interrupted, and sign off."""
    import uvicorn

    to = server.connect(address)
    project = to.project(name)
    controls = config.readable(project.label_config, f"{to.address}/projects/{project.id}")
    people = to.people()
    secret = secrets.token_urlsafe(24)
    news = asyncio.Event()

    def write() -> None:
        done = Pulled()
        pull.write(out, controls, people, done)
        click.echo(f"{done.rows:,} rows by {done.annotators:,} annotators in {out}")

    receive = handler(pull.beside(out), to.address, secret, news.set)
    where = target or f"http://{host}:{port}/"
    with to.webhook(project.id, where, {HEADER: secret}, ACTIONS):
        # uvicorn raises the signal again when it has stopped: we have to sign off before we end.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        click.echo(f"listening on {where} for '{name}'; Ctrl-C stops")
        uvicorn.run(
            app(receive, lambda: in_pauses(news, write)), host=host, port=port, log_level="warning"
        )
    write()
