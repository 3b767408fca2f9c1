"""The server's addresses: what comes in, who may, and what goes out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Header, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from abstain.queue import QueueError, Refused
from abstain.serve import label_studio, openai_api, people
from abstain.serve.batcher import Busy
from abstain.serve.keys import Key, Keys
from abstain.serve.limits import Limits
from abstain.serve.openai_api import ChatRequest, failure
from abstain.serve.service import Conflict, NotAccepted, Question, Service, Told
from curate.errors import UserError

_OPEN = Key("anyone", "people")
_RETRY = 2  # seconds, where a data base is busy or a disk is full
_PAGE = Path(__file__).parent / "page.html"
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"description": what, "content": {"application/json": {}}}
    for status, what in {
        400: "What was sent makes no request; the message says why",
        401: "No key, or an unknown one",
        408: "The body came too slowly",
        409: "The id was used for another question, or the item is not in that state",
        413: "The body is too large",
        429: "No room or no time now; Retry-After says when",
        503: "The queue or the log cannot be written now: nothing was accepted",
    }.items()
}


@dataclass(frozen=True)
class Settings:
    """How the server is set up."""

    model: str  # the name that clients see
    keys: Keys
    needs_key: bool = True  # decided once: taking the last key away must not open the door
    most_bytes: int = 2**20
    body_seconds: float = 10.0
    allowed_origin: str = ""  # of other pages; none by default
    webhook: Callable[[Request], Awaitable[Response]] | None = None  # of Label Studio
    beside: Sequence[Callable[[], Coroutine[Any, Any, None]]] = ()  # what runs as long as it does


class Turn(BaseModel):
    """What was said before."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant"]
    content: str


class AskRequest(BaseModel):
    """``POST /v1/ask``."""

    model_config = ConfigDict(extra="forbid")
    question: str = Field(min_length=1)
    context: str = ""
    history: list[Turn] = Field(default_factory=list, max_length=1000)
    document: str = Field("", max_length=500)
    id: str = Field("", max_length=200, description="Yours: the same one is taken in once.")


def create(service: Service, settings: Settings) -> FastAPI:
    """The application; starting it starts the model's thread, ending it answers what waits."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.batcher.start()
        running = [asyncio.ensure_future(one()) for one in settings.beside]
        yield
        for one in running:
            one.cancel()
        await asyncio.to_thread(service.batcher.close, service.seconds)

    app = FastAPI(
        title="grounded-abstain",
        description="Answers from a given context, and says so where it does not tell.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
    )
    app.state.service, app.state.settings = service, settings
    app.add_middleware(Limits, most_bytes=settings.most_bytes, seconds=settings.body_seconds)
    if settings.allowed_origin:
        from starlette.middleware.cors import CORSMiddleware

        app.add_middleware(
            CORSMiddleware,
            allow_origins=[settings.allowed_origin],
            allow_methods=["GET", "POST"],
            allow_headers=["authorization", "content-type", "idempotency-key"],
        )
    _errors(app, service)
    _asking(app, service, settings)
    people.add(app, service, holder("people"))
    _about(app, service, settings)
    if settings.webhook is not None:
        app.router.add_route(label_studio.PATH, settings.webhook, methods=["POST"])
    return app


def holder(scope: str) -> Callable[..., Any]:
    """Tells whose key a request brings; refuses who has none, or not for this."""

    def check(request: Request, authorization: Annotated[str, Header()] = "") -> Key:
        settings: Settings = request.app.state.settings
        keys = settings.keys
        if not settings.needs_key and not keys.names():
            return _OPEN
        kind, _, secret = authorization.partition(" ")
        key = keys.holder(secret.strip()) if kind.casefold() == "bearer" else None
        if key is None:
            raise HTTPException(401, "a key is needed: Authorization: Bearer ga-…")
        if scope == "people" and key.scope != "people":
            raise HTTPException(401, "this key asks questions; the queue needs one for people")
        return key

    return check


def _asking(app: FastAPI, service: Service, settings: Settings) -> None:
    asker = Annotated[Key, Depends(holder("ask"))]

    @app.post("/v1/chat/completions", tags=["ask"], response_model=None)
    async def chat(
        body: ChatRequest,
        request: Request,
        key: asker,
        idempotency_key: Annotated[str, Header(max_length=200)] = "",
    ) -> Response:
        """An answer, or what is said instead, to any OpenAI client; ``decision`` tells why."""
        if body.stream and not service.policy.stream:
            raise HTTPException(400, "this server's policy does not stream; leave 'stream' out")
        told = await _unless_gone(request, service, body.question(_own(key, idempotency_key)))
        if body.stream:
            usage = body.stream_options is not None and body.stream_options.include_usage
            events = openai_api.pieces(told, settings.model, usage)
            return StreamingResponse(events, media_type="text/event-stream")
        return JSONResponse(openai_api.completion(told, settings.model))

    @app.post("/v1/ask", tags=["ask"], response_model=None)
    async def ask(body: AskRequest, request: Request, key: asker) -> Response:
        """The whole decision: signals, threshold, guarantee, rule, action, and what is said."""
        number = _own(key, body.id)
        history = [turn.model_dump() for turn in body.history]
        question = Question(body.question, body.context, history, body.document, number)
        return JSONResponse((await _unless_gone(request, service, question)).record)

    @app.get("/v1/models", tags=["ask"])
    async def models(_: asker) -> dict[str, Any]:
        """The one model there is."""
        model = {"id": settings.model, "object": "model", "created": 0, "owned_by": "you"}
        return {"object": "list", "data": [model]}


def _own(key: Key, number: str) -> str:
    """A client's id among all clients'."""
    return f"{key.name}:{number}" if number else ""


async def _unless_gone(request: Request, service: Service, question: Question) -> Told:
    """Decide, but stop where the client does not wait for it."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    deciding = asyncio.ensure_future(service.decide(question))
    leaving = asyncio.ensure_future(gone())
    try:
        await asyncio.wait({deciding, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not deciding.done():
            service.metrics.refused("client_gone")
            raise HTTPException(499, "the client has gone")
        return deciding.result()
    finally:
        deciding.cancel()
        leaving.cancel()


def _about(app: FastAPI, service: Service, settings: Settings) -> None:
    @app.get("/healthz", tags=["about"])
    async def healthz() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "alive"}

    @app.get("/readyz", tags=["about"], response_model=None)
    async def readyz() -> Response:
        """Whether questions can be taken: the model runs, and the queue can be read."""
        try:
            counts = await asyncio.to_thread(service.queue.counts)
        except QueueError as error:
            return JSONResponse({"status": "not ready", "why": str(error)}, 503)
        if not service.batcher.alive:
            return JSONResponse({"status": "not ready", "why": "the model does not run"}, 503)
        return JSONResponse({"status": "ready", "queue": counts, "model": settings.model})

    @app.get("/metrics", tags=["about"], response_model=None)
    async def metrics() -> Response:
        """For Prometheus."""
        text = await asyncio.to_thread(service.metrics.text)
        return Response(text, media_type="text/plain; version=0.0.4")

    @app.get("/v1/policy", tags=["about"])
    async def policy(_: Annotated[Key, Depends(holder("ask"))]) -> dict[str, Any]:
        """The policy in words, its threshold and its guarantee."""
        threshold = service.cascade.threshold
        return {
            "policy": service.policy.explain().split("\n"),
            "threshold": threshold.value,
            "guarantee": threshold.promise(),
            "model": settings.model,
        }

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        headers = {
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; "
            "script-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'",
            "referrer-policy": "no-referrer",
            "x-content-type-options": "nosniff",
        }
        return HTMLResponse(_PAGE.read_text(encoding="utf-8"), headers=headers)


def _errors(app: FastAPI, service: Service) -> None:
    """Every error in OpenAI's form, with what to do about it."""

    def say(status: int, why: str, kind: str, **headers: str) -> JSONResponse:
        return JSONResponse(failure(why, kind), status, headers=headers)

    @app.exception_handler(Busy)
    async def busy(_: Request, error: Busy) -> JSONResponse:
        service.metrics.refused("busy")
        after = {"Retry-After": str(max(1, round(error.retry_after)))}
        return JSONResponse(failure(str(error), "rate_limit_error"), 429, headers=after)

    @app.exception_handler(QueueError)
    @app.exception_handler(NotAccepted)
    async def unwritable(_: Request, error: UserError) -> JSONResponse:
        service.metrics.refused("unwritable")
        return JSONResponse(
            failure(f"nothing was accepted: {error}", "server_error"),
            503,
            headers={"Retry-After": str(_RETRY)},
        )

    @app.exception_handler(Refused)
    @app.exception_handler(Conflict)
    async def conflict(_: Request, error: UserError) -> JSONResponse:
        return say(409, str(error), "invalid_request_error")

    @app.exception_handler(UserError)
    async def wrong(_: Request, error: UserError) -> JSONResponse:
        return say(400, str(error), "invalid_request_error")

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        parts = [
            f"{'.'.join(str(part) for part in one['loc'] if part != 'body')}: {one['msg']}"
            for one in error.errors()
        ]
        return say(400, "; ".join(parts)[:2000], "invalid_request_error")

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        kind = "authentication_error" if error.status_code == 401 else "invalid_request_error"
        return say(error.status_code, str(error.detail), kind, **dict(error.headers or {}))
