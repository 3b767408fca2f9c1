"""One page by HTTP, within bounds of size, time and place."""

import asyncio
import email.message
import functools
import importlib.metadata
import zlib
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin

import httpcore2
import httpx2

from curate.pace import Pace, retry_after
from curate.scrape.guard import GuardedBackend, PrivateAddress

AGENT = "grounded-abstain"  # what robots.txt may call us
_REDIRECTS = (301, 302, 303, 307, 308)
_BUSY = (429, 503)
_AGAIN = ("busy", "server_error", "unreachable", "cut_off")  # worth another try at once,
TRANSIENT = (*_AGAIN, "too_slow")  # and in a later run; all else would only be said again


def user_agent() -> str:
    """What we call ourselves to servers."""
    version = importlib.metadata.version("grounded-abstain")
    return f"{AGENT}/{version} (collects question-answering data; obeys robots.txt)"


class Refused(Exception):
    """A page that is not read: the reason in a word, the rest in a sentence.

    ``wait`` are the seconds after which the server would be asked again, where it says so.
    """

    def __init__(self, reason: str, detail: str = "", wait: float | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.wait = reason, detail, wait


@dataclass(frozen=True)
class Limits:
    """Bounds of one page: bytes when unpacked, seconds a try, tries, redirects, seconds waited."""

    max_bytes: int = 5_000_000
    timeout: float = 30.0
    tries: int = 4
    redirects: int = 5
    longest_wait: float = 120.0


@dataclass
class Page:
    """What a server answered; 304 comes without a body."""

    url: str
    status: int
    body: bytes = b""
    content_type: str = ""
    charset: str | None = None
    etag: str = ""
    last_modified: str = ""


Check = Callable[[str], Awaitable[None]]  # raises `Refused` where an address must not be asked


class Fetcher:
    """Gets pages; close it with ``async with``."""

    def __init__(
        self,
        limits: Limits,
        delay: float = 0.5,
        allowed: Collection[tuple[str, int]] = (),
    ) -> None:
        """``allowed`` are hosts with ports whose addresses may be private."""
        self.limits, self.pace = limits, Pace(delay)
        transport = httpx2.AsyncHTTPTransport(trust_env=False)
        # The transport takes no backend of its own; its pool does.
        transport._pool = httpcore2.AsyncConnectionPool(
            ssl_context=httpx2.create_ssl_context(), network_backend=GuardedBackend(allowed)
        )
        self._client = httpx2.AsyncClient(
            transport=transport,
            follow_redirects=False,
            trust_env=False,  # a proxy would be asked for addresses that the guard does not see
            timeout=limits.timeout,
            headers={"User-Agent": user_agent(), "Accept-Encoding": "gzip"},
        )

    async def __aenter__(self) -> "Fetcher":
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._client.__aexit__(*error)

    async def get(
        self,
        url: str,
        check: Check | None = None,
        kinds: Collection[str] = (),
        known: Mapping[str, str] | None = None,
        max_bytes: int = 0,
    ) -> Page:
        """Get a page, following redirects; ``check`` is asked before each address.

        ``kinds`` are the content types wanted (all where there are none), ``known`` the headers of
        a conditional request. Raises `Refused` for whatever is not a page of the kinds wanted.
        """
        for _ in range(self.limits.redirects + 1):
            if check is not None:
                await check(url)
            answer, target = await self._with_patience(url, kinds, known or {}, max_bytes)
            if not target:
                return answer
            url = plain_url(url, target)
        raise Refused("too_many_redirects", f"more than {self.limits.redirects}, last to {url}")

    async def _with_patience(
        self, url: str, kinds: Collection[str], known: Mapping[str, str], max_bytes: int
    ) -> tuple[Page, str]:
        """One address, tried again where that may help; with what it redirects to."""
        host = httpx2.URL(url).netloc.decode()
        for attempt in range(1, self.limits.tries + 1):
            await self.pace.turn(host)
            try:
                return await self._once(url, kinds, known, max_bytes or self.limits.max_bytes)
            except Refused as refused:
                wait = 2.0 ** (attempt - 1) if refused.wait is None else refused.wait
                if wait > self.limits.longest_wait:
                    raise Refused("busy", f"asks to come back in {wait:,.0f} seconds") from refused
                if refused.reason not in _AGAIN or attempt == self.limits.tries:
                    raise
                self.pace.pause(host, wait)
        raise AssertionError("unreachable")

    async def _once(
        self, url: str, kinds: Collection[str], known: Mapping[str, str], max_bytes: int
    ) -> tuple[Page, str]:
        try:
            async with (
                asyncio.timeout(self.limits.timeout),
                self._client.stream("GET", url, headers=dict(known)) as response,
            ):
                if response.status_code in _REDIRECTS and "location" in response.headers:
                    return Page(url, response.status_code), response.headers["location"]
                if response.status_code == 304 and not known:
                    raise Refused("http_304", "unchanged, though nothing was known of it")
                page = _head(url, response, kinds)
                if page.status != 304:
                    page.body = await _body(response, max_bytes)
                return page, ""
        except PrivateAddress as error:
            raise Refused("private_address", str(error)) from error
        except (TimeoutError, httpx2.TimeoutException) as error:
            raise Refused("too_slow", f"not done in {self.limits.timeout:g} seconds") from error
        except (httpx2.RemoteProtocolError, httpx2.ReadError) as error:
            raise Refused("cut_off", str(error)) from error
        except (httpx2.TransportError, httpx2.InvalidURL) as error:
            raise Refused("unreachable", str(error)) from error


def plain_url(base: str, link: str) -> str:
    """A link on a page as an address: absolute, without fragment and default port.

    Raises `Refused` where it is no address of the web.
    """
    try:
        return _plain(urljoin(base, link.strip()))
    except (httpx2.InvalidURL, ValueError) as error:
        raise Refused("bad_link", f"{link[:100]!r}: {error}") from error


def linked_url(base: str, link: str) -> str:
    """The same, and empty where it is none: mailto:, javascript:, what is no address at all."""
    try:
        return plain_url(base, link)
    except Refused:
        return ""


@functools.lru_cache(maxsize=100_000)  # pages of one site link to the same places
def _plain(link: str) -> str:
    url = httpx2.URL(link).copy_with(fragment=None)
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > 65_535:
        raise ValueError("no http address")
    if url.port == {"http": 80, "https": 443}[url.scheme]:
        url = url.copy_with(port=None)
    return str(url.copy_with(userinfo=b""))


def _head(url: str, response: httpx2.Response, kinds: Collection[str]) -> Page:
    """Status and headers, or a refusal of what they announce."""
    status, headers = response.status_code, response.headers
    if status in _BUSY:
        raise Refused("busy", f"HTTP {status}", retry_after(headers.get("retry-after", "")))
    if status >= 500:
        raise Refused("server_error", f"HTTP {status}")
    if status != 304 and not 200 <= status < 300:
        raise Refused(f"http_{status}", "the server has no such page, or not for us")
    kind, _, parameters = headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kinds and status != 304 and kind not in kinds:
        raise Refused("content_type", kind or "none given")
    message = email.message.Message()
    message["content-type"] = f"{kind or 'text/plain'};{parameters}"
    return Page(
        url,
        status,
        content_type=kind,
        charset=message.get_content_charset(),
        etag=headers.get("etag", ""),
        last_modified=headers.get("last-modified", ""),
    )


async def _body(response: httpx2.Response, max_bytes: int) -> bytes:
    """The body, unpacked piece by piece so that a small answer cannot become a large one."""
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip", "x-gzip"):
        raise Refused("content_encoding", encoding)
    unpack = zlib.decompressobj(31) if encoding != "identity" else None
    body = bytearray()
    async for part in response.aiter_raw(1 << 16):
        try:
            body += unpack.decompress(part, max_bytes + 1 - len(body)) if unpack else part
        except zlib.error as error:
            raise Refused("content_encoding", f"not gzip: {error}") from error
        if len(body) > max_bytes:
            raise Refused("too_large", f"more than {max_bytes:,} bytes")
    if unpack is not None and not unpack.eof:
        raise Refused("cut_off", "the gzip stream has no end")
    return bytes(body)
