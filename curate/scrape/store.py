"""What a crawl has found and fetched, in one SQLite file that survives being killed.

It is both the frontier and the cache: a crawl that was interrupted goes on where it stopped, and
one that is run again asks servers only whether their pages have changed.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.errors import UserError
from curate.scrape.fetch import TRANSIENT, Page, Refused

_SCHEMA = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pages (
  url TEXT PRIMARY KEY,
  state TEXT NOT NULL,            -- old: not met in this crawl; waiting; done; refused
  depth INTEGER NOT NULL,
  found_on TEXT NOT NULL,
  reason TEXT NOT NULL DEFAULT '',
  detail TEXT NOT NULL DEFAULT '',
  final_url TEXT, content_type TEXT, charset TEXT, etag TEXT, last_modified TEXT,
  retrieved_at TEXT, sha256 TEXT, body BLOB
);
"""


@dataclass(frozen=True)
class Found:
    """An address that waits, how many links from the start, and where it was linked."""

    url: str
    depth: int
    found_on: str


class Store:
    """The file; every change is on the disk when its method returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path}: not a crawl's file ({error}); name another") from error

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def begin(self, settings: str) -> bool:
        """Go on with the crawl of the same settings, or begin one; returns whether it goes on."""
        about = dict(self._db.execute("SELECT name, value FROM about"))
        goes_on = about.get("settings") == settings and about.get("finished") == "no"
        if goes_on:
            again = ",".join("?" * len(TRANSIENT))
            self._db.execute(
                "UPDATE pages SET state='waiting' WHERE state='refused' "  # noqa: S608
                f"AND reason IN ({again})",
                TRANSIENT,
            )
        else:
            self._db.execute("UPDATE pages SET state='old'")
            self._set("sitemaps", "waiting")
        self._set("settings", settings)
        self._set("finished", "no")
        return goes_on

    def finish(self) -> None:
        """Say that nothing is left: the next run is a new crawl."""
        self._set("finished", "yes")

    def sitemaps_read(self) -> bool:
        """Whether this crawl's sitemaps are in the frontier."""
        found = self._db.execute("SELECT value FROM about WHERE name='sitemaps'").fetchone()
        return bool(found == ("read",))

    def mark_sitemaps_read(self) -> None:
        """Say that all that the sitemaps list is in the frontier."""
        self._set("sitemaps", "read")

    def final_url(self, url: str) -> str:
        """Where a page of this crawl was found in the end; empty where it was not fetched yet."""
        found = self._db.execute(
            "SELECT final_url FROM pages WHERE url=? AND state='done'", (url,)
        ).fetchone()
        return str(found[0]) if found else ""

    def _set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO about VALUES (?, ?)", (name, value))

    def add(self, found: list[Found]) -> list[Found]:
        """Put addresses into the frontier; returns those that this crawl had not met."""
        new: list[Found] = []
        self._db.execute("BEGIN")
        for one in found:
            changed = self._db.execute(
                "INSERT INTO pages (url, state, depth, found_on) VALUES (?, 'waiting', ?, ?) "
                "ON CONFLICT (url) DO UPDATE SET state='waiting', depth=excluded.depth, "
                "found_on=excluded.found_on WHERE state='old'",
                (one.url, one.depth, one.found_on),
            )
            new += [one] if changed.rowcount else []
        self._db.execute("COMMIT")
        return new

    def waiting(self) -> list[Found]:
        """The frontier, the nearest to the start first."""
        found = self._db.execute(
            "SELECT url, depth, found_on FROM pages WHERE state='waiting' ORDER BY depth, rowid"
        )
        return [Found(*one) for one in found]

    def count(self, state: str) -> int:
        """How many addresses are in a state."""
        (number,) = self._db.execute(
            "SELECT COUNT(*) FROM pages WHERE state=?", (state,)
        ).fetchone()
        return int(number)

    def known(self, url: str) -> dict[str, str]:
        """Headers that ask for a page only if it is another than the one kept."""
        found = self._db.execute(
            "SELECT etag, last_modified FROM pages WHERE url=? AND body IS NOT NULL", (url,)
        ).fetchone()
        names = ("If-None-Match", "If-Modified-Since")
        return {name: value for name, value in zip(names, found or (), strict=False) if value}

    def save(self, url: str, page: Page, retrieved_at: str) -> None:
        """Keep a page; of one that has not changed the body stays the one kept."""
        if page.status == 304:
            self._db.execute(
                "UPDATE pages SET state='done', reason='', detail='', retrieved_at=? WHERE url=?",
                (retrieved_at, url),
            )
            return
        values = (page.url, page.content_type, page.charset, page.etag, page.last_modified)
        digest = hashlib.sha256(page.body).hexdigest()
        self._db.execute(
            "UPDATE pages SET state='done', reason='', detail='', final_url=?, content_type=?, "
            "charset=?, etag=?, last_modified=?, retrieved_at=?, sha256=?, body=? WHERE url=?",
            (*values, retrieved_at, digest, zlib.compress(page.body), url),
        )

    def refuse(self, url: str, refused: Refused) -> None:
        """Keep why an address gave no page; what it gave in an earlier crawl stays."""
        self._db.execute(
            "UPDATE pages SET state='refused', reason=?, detail=? WHERE url=?",
            (refused.reason, refused.detail, url),
        )

    def page(self, url: str) -> Page:
        """A page that was kept."""
        kept = self._db.execute(
            "SELECT final_url, body, content_type, charset, etag, last_modified FROM pages "
            "WHERE url=?",
            (url,),
        ).fetchone()
        final_url, body, *rest = kept
        return Page(final_url, 200, zlib.decompress(body), *rest)

    def done(self) -> Iterator[tuple[str, str]]:
        """Addresses of this crawl's pages with the time they were fetched, in their own order.

        Of pages with the same bytes, or reached by several addresses, the first is given.
        """
        yield from self._db.execute(
            "SELECT url, retrieved_at FROM (SELECT url, retrieved_at, final_url, sha256, "
            "ROW_NUMBER() OVER (PARTITION BY final_url ORDER BY url) AS f, "
            "ROW_NUMBER() OVER (PARTITION BY sha256 ORDER BY url) AS s "
            "FROM pages WHERE state='done') WHERE f=1 AND s=1 ORDER BY url"
        )

    def report(self) -> Iterator[tuple[str, str, int, str, str, str]]:
        """Every address met: url, state, depth, where found, reason and detail."""
        yield from self._db.execute(
            "SELECT url, state, depth, found_on, reason, detail FROM pages "
            "WHERE state IN ('done', 'refused', 'waiting') ORDER BY url"
        )
