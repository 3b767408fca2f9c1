"""The addresses that a page links to."""

from collections.abc import Iterator

from lxml import etree, html

from curate.scrape.fetch import Page, linked_url
from curate.web.page import decode


def links(page: Page) -> Iterator[str]:
    """Absolute addresses in the page's order; what is no web address is passed over."""
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
        base = linked_url(base, element.get("href") or "") or base
        break
    for element in tree.iter("a", "area", "frame", "iframe"):
        target = element.get("href") or element.get("src")
        if target and (url := linked_url(base, target)):
            yield url


_PARSER = html.HTMLParser(encoding="utf-8")
