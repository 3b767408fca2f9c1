"""Sitemaps (sitemaps.org): XML, an index of them, or a text with an address a line."""

import zlib

from lxml import etree

from curate.scrape.fetch import Fetcher, Refused
from curate.scrape.robots import Robots

_MAX_BYTES = 50_000_000  # the protocol's own bound
_MAX_SITEMAPS = 1_000


async def read(
    fetcher: Fetcher, robots: Robots, sitemaps: list[str]
) -> tuple[list[str], list[tuple[str, Refused]]]:
    """The addresses that sitemaps list, and the sitemaps that could not be read."""
    found: dict[str, None] = {}
    refused: list[tuple[str, Refused]] = []
    waiting, seen = list(sitemaps), set(sitemaps)
    while waiting:
        url = waiting.pop(0)
        try:
            page = await fetcher.get(url, robots.check, max_bytes=_MAX_BYTES)
            more, pages = parse(page.body)
        except Refused as error:
            refused.append((url, error))
            continue
        found.update(dict.fromkeys(pages))
        for one in more:
            if one not in seen and len(seen) < _MAX_SITEMAPS:
                seen.add(one)
                waiting.append(one)
    return list(found), refused


def parse(body: bytes) -> tuple[list[str], list[str]]:
    """The further sitemaps and the pages that a sitemap lists; it may be gzipped once more."""
    if body[:2] == b"\x1f\x8b":
        unpack = zlib.decompressobj(31)
        try:
            body = unpack.decompress(body, _MAX_BYTES)
        except zlib.error as error:
            raise Refused("content_encoding", f"not gzip: {error}") from error
    if not body.lstrip().removeprefix(b"\xef\xbb\xbf").startswith(b"<"):
        lines = body.decode("utf-8", "replace").split()
        return [], [line for line in lines if line.startswith(("http://", "https://"))]
    # No entities, no network: a sitemap is a stranger's XML.
    parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
    root = etree.fromstring(body, parser)
    if root is None:
        raise Refused("malformed", "a sitemap that is no XML")
    places = [str(text).strip() for text in root.xpath("//*[local-name()='loc']/text()")]
    if etree.QName(root).localname == "sitemapindex":
        return places, []
    return [], places
