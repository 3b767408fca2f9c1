"""The crawl: from the start along links and sitemaps, nearest first, each page once."""

import asyncio
import json
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx2
from tqdm import tqdm

from curate.scrape import sitemap
from curate.scrape.fetch import Fetcher, Limits, Page, Refused, linked_url
from curate.scrape.links import links
from curate.scrape.robots import Robots
from curate.scrape.scope import PAGES, Reach, Scope
from curate.scrape.store import Found, Store
from curate.sources.forum import discourse


@dataclass(frozen=True)
class Settings:
    """What is fetched, and how hard its servers are asked."""

    starts: tuple[str, ...]
    reach: Reach = "folder"
    exclude: str = ""
    max_pages: int = 2_000
    max_depth: int = 10
    delay: float = 0.5
    concurrency: int = 2
    allow_private: bool = False
    sitemaps: bool = True
    limits: Limits = field(default_factory=Limits)

    def identity(self) -> str:
        """What makes a crawl another one: a new bound or pace goes on with the one begun."""
        return json.dumps([self.starts, self.reach, self.exclude, self.sitemaps])


@dataclass
class Crawled:
    """What came of it: pages fetched anew and unchanged, links left out, and what still waits."""

    pages: int = 0
    unchanged: int = 0
    resumed: int = 0
    waiting: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def crawl(settings: Settings, store: Store) -> Crawled:
    """Fetch into ``store`` until nothing waits or ``max_pages`` are there."""
    return asyncio.run(_Crawl(settings, store).run())


class _Crawl:
    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings, self.store = settings, store
        self.found = Crawled()
        self.scope = Scope(settings.starts, settings.reach, settings.exclude)
        self.waiting: dict[str, deque[Found]] = defaultdict(deque)  # by host
        self.met: set[str] = set()
        self.done = 0

    async def run(self) -> Crawled:
        settings, store = self.settings, self.store
        allowed = {_host_and_port(start) for start in settings.starts}
        hosts = allowed if settings.allow_private else ()
        goes_on = store.begin(settings.identity())
        self.found.resumed = self.done = store.count("done") if goes_on else 0
        async with Fetcher(settings.limits, settings.delay, hosts) as self.fetcher:
            self.robots = Robots(self.fetcher)
            with tqdm(desc="fetch", unit="page", initial=self.found.resumed) as self.bar:
                store.add([Found(start, 0, "") for start in settings.starts])
                for start in settings.starts:  # of an earlier run, where this goes on
                    self._widen(store.final_url(start))
                for one in [found for found in store.waiting() if found.depth == 0]:
                    await self._visit(one)
                self.waiting.clear()
                self._queue(found for found in store.waiting() if found.depth)
                if settings.sitemaps and not store.sitemaps_read():
                    await self._read_sitemaps()
                    store.mark_sitemaps_read()
                await self._visit_all()
        self.found.waiting = store.count("waiting")
        if not self.found.waiting:
            store.finish()
        return self.found

    async def _visit_all(self) -> None:
        """At most ``concurrency`` pages of one host at a time."""
        running: dict[asyncio.Task[None], str] = {}
        try:
            while True:
                busy = Counter(running.values())
                for host, waiting in self.waiting.items():
                    room = self.settings.max_pages - self.done - len(running)
                    for _ in range(min(room, len(waiting), self.settings.concurrency - busy[host])):
                        task = asyncio.create_task(self._visit(waiting.popleft()))
                        running[task] = host
                if not running:
                    return
                finished, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for task in finished:
                    del running[task]
                    task.result()
        finally:
            for task in running:
                task.cancel()

    async def _visit(self, found: Found) -> None:
        async def check(url: str) -> None:
            if found.depth:  # a start may redirect anywhere
                self.scope.check(url)
            await self.robots.check(url)

        kinds = (*PAGES, "application/json")
        try:
            page = await self.fetcher.get(found.url, check, kinds, self.store.known(found.url))
        except Refused as refused:
            self.store.refuse(found.url, refused)
            return
        self.found.unchanged += page.status == 304
        self.found.pages += page.status != 304
        self.done += 1
        whole = self.store.page(found.url) if page.status == 304 else page
        if not found.depth:
            self._widen(whole.url)
        # Its links first: were the process killed between, the page would be asked for once more,
        # and nothing that it leads to would be lost.
        self._add(_linked(whole), found.depth + 1, found.url)
        self.store.save(found.url, page, datetime.now(UTC).isoformat(timespec="seconds"))
        self.bar.update()
        self.bar.set_postfix(waiting=sum(map(len, self.waiting.values())), refresh=False)

    def _widen(self, start: str) -> None:
        """Take where a start redirects to for one more start."""
        scope = self.scope
        if start and start not in scope.starts:
            self.scope = Scope((*scope.starts, start), scope.reach, scope.exclude)

    def _add(self, urls: Iterable[str], depth: int, found_on: str) -> None:
        """Put links into the frontier, or into the books."""
        inside: list[Found] = []
        for url in urls:
            if url in self.met:
                continue
            self.met.add(url)
            try:
                self.scope.check(url)
            except Refused as refused:
                self.found.left_out[refused.reason] += 1
                continue
            if depth > self.settings.max_depth:
                self.found.left_out["too_deep"] += 1
                continue
            inside.append(Found(url, depth, found_on))
        self._queue(self.store.add(inside))

    def _queue(self, found: Iterable[Found]) -> None:
        for one in found:
            self.waiting[httpx2.URL(one.url).netloc.decode()].append(one)

    async def _read_sitemaps(self) -> None:
        for start in self.scope.starts:
            try:
                named = list((await self.robots.rules(start)).sitemaps)
            except Refused:  # a private address: the start was refused for it, and says so
                continue
            usual = str(httpx2.URL(start).join("/sitemap.xml"))
            listed, refused = await sitemap.read(self.fetcher, self.robots, named or [usual])
            self.found.faults += [
                f"{url}: {error}" for url, error in refused if named or error.reason != "http_404"
            ]
            self._add(filter(None, (linked_url(start, one) for one in listed)), 1, "sitemap")


def _linked(page: Page) -> Iterable[str]:
    """Where a page leads: a forum's own JSON is read instead of its pages."""
    if page.content_type == "application/json":
        return discourse.links(page.url, page.body)
    return discourse.entrance(page.url, page.body) or links(page)


def _host_and_port(url: str) -> tuple[str, int]:
    parsed = httpx2.URL(url)
    return parsed.host, parsed.port or {"http": 80, "https": 443}[parsed.scheme]
