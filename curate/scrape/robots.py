"""robots.txt (RFC 9309): what a site lets us read. What cannot be known is not allowed."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import httpx2
from protego import Protego

from curate.scrape.fetch import AGENT, Fetcher, Refused

_MAX_BYTES = 512_000  # at least that much must be read; the file that is longer is a mistake
_ABSENT = ("http_404", "http_410")  # there are no rules


@dataclass(frozen=True)
class Rules:
    """What a site's robots.txt says; without ``parsed`` either all or nothing is allowed."""

    parsed: Protego | None = None
    closed: str = ""  # why nothing is allowed

    @property
    def sitemaps(self) -> Sequence[str]:
        """The sitemaps that it names."""
        return list(self.parsed.sitemaps) if self.parsed else []


class Robots:
    """The rules of every site met, each asked for once."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._known: dict[str, asyncio.Task[Rules]] = {}

    async def check(self, url: str) -> None:
        """Raise `Refused` where the site does not let us read ``url``."""
        rules = await self.rules(url)
        if rules.closed:
            raise Refused("robots", rules.closed)
        if rules.parsed is not None and not rules.parsed.can_fetch(url, AGENT):
            raise Refused("robots", "robots.txt forbids it")

    async def rules(self, url: str) -> Rules:
        """The rules of the site that ``url`` is of."""
        site = httpx2.URL(url).join("/robots.txt")
        key = f"{site.scheme}://{site.netloc.decode()}"
        if key not in self._known:
            self._known[key] = asyncio.create_task(self._read(str(site), site.netloc.decode()))
        return await self._known[key]

    async def _read(self, address: str, host: str) -> Rules:
        try:
            page = await self._fetcher.get(address, max_bytes=_MAX_BYTES)
        except Refused as refused:
            if refused.reason in _ABSENT:
                return Rules()
            if refused.reason == "private_address":
                raise  # of the site, and so of all its pages
            return Rules(closed=f"its robots.txt cannot be read ({refused})")
        parsed = Protego.parse(page.body.decode("utf-8", "replace"))
        self._fetcher.pace.slow_down(host, float(parsed.crawl_delay(AGENT) or 0))
        return Rules(parsed)
