"""The addresses that a page links to."""

from collections.abc import Iterator

from lxml import etree, html

from curate.scrape.fetch import Page, Refused, plain_url
from curate.web.page import decode


def links(page: Page) -> Iterator[str]:
    """Absolute addresses in the page's order, each once; what is no web address is passed over."""
    text = decode(page.body, page.charset)
    if not text.strip():
        return
    try:
        # lxml refuses a text that declares an encoding, and strings have none.
        tree = html.fromstring(text.encode("utf-8", "replace"), parser=_PARSER)
    except etree.ParserError:  # nothing but comments
        return
    base = page.url
    for element in tree.iter("base"):
        base = _plain(base, element.get("href") or "") or base
        break
    seen: set[str] = set()
    for element in tree.iter("a", "area", "frame", "iframe"):
        target = element.get("href") or element.get("src")
        url = _plain(base, target) if target else ""
        if url and url not in seen:
            seen.add(url)
            yield url


_PARSER = html.HTMLParser(encoding="utf-8")


def _plain(base: str, link: str) -> str:
    try:
        return plain_url(base, link)
    except Refused:  # mailto:, javascript:, and what is no address at all
        return ""
