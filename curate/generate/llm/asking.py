"""Asking a model behind an OpenAI-compatible address, many questions at once, none twice."""

import asyncio
import hashlib
import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from curate.chat import Message, api_key, without_password
from curate.errors import UserError
from curate.generate.llm.responses import Responses
from curate.pace import Pace, retry_after

T = TypeVar("T")
ATTEMPTS = 3  # answers that cannot be read, before a request is given up
_TRIES = 8  # of a server that is busy or away,
_TRIES_WHEN_TOLD = 60  # and of one that says when to come back: many may come back at once
_LONGEST_WAIT = 900.0  # seconds; a server that asks for more is left for another day
_BUSY = (408, 409, 429)
_NOT_THIS_ONE = (400, 413, 422)  # wrong with this request; all else is wrong with every one
_MANY = 5  # refusals in a row, and no answer ever: it is not the passages
TOKEN_CHARACTERS = 4  # of English, about; only for estimates


@dataclass(frozen=True)
class Request:
    """What a model is asked. ``schema`` is the JSON schema of its answer; None: plain text."""

    messages: Sequence[Message]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 13
    schema: dict[str, Any] | None = None

    def about_tokens(self) -> int:
        """The most that it may cost, by the length of its texts."""
        texts = sum(len(message["content"]) for message in self.messages)
        return texts // TOKEN_CHARACTERS + self.max_tokens


@dataclass(frozen=True)
class Who:
    """A model at an address; ``known_as`` is the address's name in keys, where it changes."""

    address: str
    model: str
    known_as: str = ""


class Malformed(Exception):
    """No answer of a model could be read, however often it was asked."""


class NotAnswered(Exception):
    """The server refuses one request, and would again: too long for the model, say."""


class BudgetSpent(Exception):
    """The next request could cost more tokens than are left."""


@dataclass
class Spending:
    """Tokens that may be spent, earlier runs counted; None: any number. ``reserved`` are asked."""

    budget: int | None
    responses: Responses
    reserved: int = 0
    requests: int = 0  # sent by this run, and answered
    reused: int = 0  # answered from the file
    stopped: UserError | None = None  # the server is of no use: no new request is made

    def reserve(self, tokens: int) -> None:
        """Set tokens aside before they are spent, for the requests under way at once."""
        if self.stopped is not None:
            raise self.stopped
        asked = self.responses.paid.total + self.reserved + tokens
        if self.budget is not None and asked > self.budget:
            raise BudgetSpent
        self.reserved += tokens


class Model:
    """A model behind an address; ``async with`` closes the connections."""

    def __init__(self, who: Who, spending: Spending) -> None:
        import openai

        self.address, self.model = without_password(who.address), who.model
        self.spending = spending
        self._known_as = who.known_as or self.address
        self._client = openai.AsyncOpenAI(
            base_url=who.address, api_key=api_key(), timeout=300, max_retries=0
        )
        self._pace = Pace(0)
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._refused = 0

    async def __aenter__(self) -> "Model":
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.close()

    async def ask(self, request: Request, read: Callable[[str], T]) -> T:
        """What ``read`` makes of the answer; it raises ValueError where it can make nothing of it.

        Then the model is asked again, with another seed. Raises `Malformed`, `NotAnswered`,
        `BudgetSpent`, and `UserError` where the server is of no use.
        """
        key, responses = self.key(request), self.spending.responses
        fault: Exception | None = None
        async with self._locks[key]:  # the same question on two passages is paid once
            for attempt in range(ATTEMPTS):
                body = responses.get(key, attempt)
                if body is None:
                    body = await self._send(replace(request, seed=request.seed + attempt))
                    responses.append(key, body)
                    self.spending.requests += 1
                else:
                    self.spending.reused += 1
                try:
                    return read(_content(body))
                except ValueError as error:
                    fault = error
        raise Malformed(f"{ATTEMPTS} answers could not be read: {fault}")

    def key(self, request: Request) -> str:
        """The name of a request: who is asked, and what."""
        asked = {"address": self._known_as, "model": self.model, **asdict(request)}
        text = json.dumps(asked, sort_keys=True, default=list)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    async def _send(self, request: Request) -> str:
        """The response's body as it came. Waits where the server says so."""
        import openai

        reserved = request.about_tokens()
        self.spending.reserve(reserved)
        try:
            for attempt in range(1, _TRIES_WHEN_TOLD + 1):
                await self._pace.turn(self.address)
                if self.spending.stopped is not None:
                    raise self.spending.stopped
                try:
                    return await self._once(request)
                except openai.APIStatusError as error:
                    told = self._patience(error)
                    fault: openai.APIError = error
                except openai.APIConnectionError as error:
                    told, fault = None, error
                wait = _backoff(attempt) if told is None else told
                if wait > _LONGEST_WAIT or (told is None and attempt >= _TRIES):
                    break
                self._pace.pause(self.address, wait)
            asks = f" and asks to come back in {wait:,.0f} seconds" if wait > _LONGEST_WAIT else ""
            raise UserError(
                f"{self.address}: asked {attempt} times, it says '{_said(fault)}'{asks}. What was "
                f"answered is kept in {self.spending.responses.path}; the same command goes on"
            )
        except UserError as error:
            self.spending.stopped = self.spending.stopped or error
            raise
        finally:
            self.spending.reserved -= reserved

    async def _once(self, request: Request) -> str:
        form: dict[str, Any] = {}
        if request.schema is not None:
            shape = {"name": "questions", "strict": True, "schema": request.schema}
            form["response_format"] = {"type": "json_schema", "json_schema": shape}
        response = await self._client.chat.completions.with_raw_response.create(
            model=self.model,
            messages=list(request.messages),  # type: ignore[arg-type]  # plain dictionaries serve
            max_tokens=request.max_tokens,
            temperature=request.temperature,
            seed=request.seed,
            **form,
        )
        self._refused = -1  # it answers: a refusal is about the request from now on
        spent = _spent(response.headers)
        if spent:
            self._pace.pause(self.address, min(spent, _LONGEST_WAIT))
        return str(response.text)

    def _patience(self, error: Any) -> float | None:
        """Seconds after which to ask the server again, where it says so; raises where never."""
        status = error.status_code
        if status in _NOT_THIS_ONE:
            self._refused += self._refused >= 0
            if self._refused < _MANY:
                raise NotAnswered(f"HTTP {status}: {_said(error)}") from error
        spent = "quota" in str(error.code or "")  # a 429 that no waiting mends
        if spent or (status not in _BUSY and status < 500):
            raise UserError(
                f"{self.address}: HTTP {status}: {_said(error)} (what was answered is kept; the "
                "same command goes on)"
            ) from error
        return asked_wait(error.response.headers)


def _content(body: str) -> str:
    """The text of the first choice; ValueError where the body is not a response."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"not a chat completion: {body[:100]!r}") from error
    if not isinstance(content, str):
        raise ValueError("an answer without a text")
    return content.strip()


def asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a busy server asks us to wait; None where it does not say.

    ``Retry-After`` (seconds or a date), its milliseconds, else the time at which a spent limit is
    renewed (``x-ratelimit-reset-requests: 1m3.5s``).
    """
    if (milliseconds := headers.get("retry-after-ms", "")).strip().isdigit():
        return int(milliseconds) / 1000
    said = retry_after(headers.get("retry-after", ""))
    return said if said is not None else _spent(headers)


def _spent(headers: Mapping[str, str]) -> float | None:
    """Seconds until a limit that is used up is renewed."""
    waits = [
        seconds
        for kind in ("requests", "tokens")
        if headers.get(f"x-ratelimit-remaining-{kind}", "").strip() == "0"
        and (seconds := _duration(headers.get(f"x-ratelimit-reset-{kind}", ""))) is not None
    ]
    return max(waits, default=None)


_PART = re.compile(r"([\d.]+)(ms|[dhms])")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def _duration(text: str) -> float | None:
    """Seconds of ``6m0s``, ``120ms`` or ``3.5``; None of anything else."""
    parts = _PART.findall(text)
    try:
        if parts and "".join(map("".join, parts)) == text.strip():
            return sum(float(number) * _UNITS[unit] for number, unit in parts)
        return float(text)
    except ValueError:
        return None


def _backoff(attempt: int) -> float:
    """Twice as long each time, at random within half of it, so that not all come back at once."""
    return min(60.0, 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0)


def _said(error: Any) -> str:
    return str(getattr(error, "message", error)).strip().replace("\n", " ")[:300]
