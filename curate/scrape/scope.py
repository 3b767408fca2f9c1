"""Which addresses belong to what the user asked for."""

import mimetypes
import re
from dataclasses import dataclass
from typing import Literal

import httpx2

from curate.scrape.fetch import Refused

PAGES = ("text/html", "application/xhtml+xml")
Reach = Literal["folder", "host"]


@dataclass(frozen=True)
class Scope:
    """The start's folder (or whole host), without what ``exclude`` matches."""

    starts: tuple[str, ...]
    reach: Reach = "folder"
    exclude: str = ""

    def check(self, url: str) -> None:
        """Raise `Refused` for an address outside, and for one that by its name is no page."""
        if not any(self._covers(start, url) for start in self.starts):
            raise Refused("out_of_scope", url)
        if self.exclude and re.search(self.exclude, url):
            raise Refused("excluded", f"matches {self.exclude}")
        kind, _ = mimetypes.guess_type(httpx2.URL(url).path)
        if kind is not None and kind not in (*PAGES, "application/json"):
            raise Refused("content_type", f"{kind}, by its name")

    def _covers(self, start: str, url: str) -> bool:
        if url == start:
            return True
        one, other = httpx2.URL(start), httpx2.URL(url)
        if (one.scheme, one.netloc) != (other.scheme, other.netloc):
            return False
        folder = one.path.rpartition("/")[0] + "/"
        return self.reach == "host" or other.path.startswith(folder)
