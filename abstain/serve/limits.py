"""What comes in: how large a body may be, and how long it may take to arrive."""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from abstain.serve.openai_api import failure

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Limits:
    """Reads a body whole before anyone works on it: a slow client holds nothing but a socket."""

    def __init__(self, app: App, most_bytes: int, seconds: float) -> None:
        """Bodies of more than ``most_bytes`` are refused, as are those slower than ``seconds``."""
        self.app = app
        self.most_bytes = most_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI interface."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self.most_bytes:
            await self._refuse(send, 413, f"the body is larger than {self.most_bytes:,} bytes")
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self.seconds)
        except TimeoutError:
            await self._refuse(send, 408, f"the body did not come within {self.seconds:g} seconds")
            return
        if body is None:
            return  # the client has gone
        if len(body) > self.most_bytes:
            await self._refuse(send, 413, f"the body is larger than {self.most_bytes:,} bytes")
            return
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()  # tells when the client goes
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, again, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or as much of it as shows that it is too large."""
        parts: list[bytes] = []
        size = 0
        while size <= self.most_bytes:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if not message.get("more_body"):
                break
        return b"".join(parts)

    async def _refuse(self, send: Send, status: int, why: str) -> None:
        body = json.dumps(failure(why, "invalid_request_error")).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
