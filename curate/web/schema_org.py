"""What a page declares about itself: schema.org's ``FAQPage`` and ``QAPage``, and its licence.

Read from JSON-LD and from microdata (https://schema.org/FAQPage, https://schema.org/QAPage).
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from bs4 import BeautifulSoup

from curate.sources.forum.thread import Reply, Thread
from curate.web.blocks import html_text
from curate.web.pairs import Pair, pair_of

Item = dict[str, Any]


@dataclass
class Declared:
    """Pairs of FAQ pages, threads of question pages, a licence, and blocks that are not JSON."""

    pairs: list[Pair] = field(default_factory=list)
    threads: list[Thread] = field(default_factory=list)
    licence: str = ""
    faults: list[str] = field(default_factory=list)


def read(soup: BeautifulSoup, html: str) -> Declared:
    """Read ``html``, of which ``soup`` is the tree."""
    declared = Declared()
    items = [*_json_ld(soup, declared.faults), *_microdata(html)]
    for item in (inner for outer in items for inner in _nested(outer)):
        declared.licence = declared.licence or _text(item.get("license"))
        for question in _questions(item):
            if "FAQPage" in _types(item):
                declared.pairs += _pair(question)
            elif "QAPage" in _types(item):
                declared.threads.append(_thread(question))
    return declared


def _json_ld(soup: BeautifulSoup, faults: list[str]) -> list[Item]:
    from extruct.jsonld import JsonLdExtractor

    found: list[Item] = []
    for number, script in enumerate(soup.find_all("script", type="application/ld+json"), 1):
        try:
            found += JsonLdExtractor().extract(str(script))
        except ValueError as error:
            faults.append(f"JSON-LD block {number}: not valid JSON: {error}")
    return found


def _microdata(html: str) -> list[Item]:
    if "itemtype" not in html:
        return []
    from extruct.w3cmicrodata import MicrodataExtractor

    return [_plain(item) for item in MicrodataExtractor().extract(html)]


def _plain(value: Any) -> Any:
    """Microdata's items in the form of JSON-LD's."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict) and "properties" in value:
        properties = {name: _plain(one) for name, one in value["properties"].items()}
        return {"@type": value.get("type"), **properties}
    return value


def _nested(value: Any) -> Iterator[Item]:
    """Every item, also those inside others (``@graph``, ``mainEntity``, ``hasPart``)."""
    waiting = [value]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, dict):
            yield one
        if isinstance(one, dict | list):
            waiting += one.values() if isinstance(one, dict) else one


def _types(item: Item) -> set[str]:
    """The item's types without their vocabulary's address or prefix."""
    names = [str(name) for name in _list(item.get("@type"))]
    return {name.rpartition("/")[2].rpartition(":")[2] for name in names}


def _questions(item: Item) -> Iterator[Item]:
    for entity in _list(item.get("mainEntity")):
        if isinstance(entity, dict) and "Question" in _types(entity):
            yield entity


def _pair(question: Item) -> Iterator[Pair]:
    for answer in _list(question.get("acceptedAnswer"))[:1]:
        if isinstance(answer, dict):
            yield pair_of(_flat(question.get("name")), _rich(answer.get("text")))


def _thread(question: Item) -> Thread:
    accepted = [_reply(one, True) for one in _list(question.get("acceptedAnswer"))]
    suggested = [_reply(one, False) for one in _list(question.get("suggestedAnswer"))]
    return Thread(
        question=_flat(question.get("name")) or _flat(question.get("text")),
        body=_rich(question.get("text")),
        replies=[reply for reply in (*accepted, *suggested) if reply.text],
        published_at=_text(question.get("dateCreated") or question.get("datePublished")),
    )


def _reply(answer: Any, accepted: bool) -> Reply:
    answer = answer if isinstance(answer, dict) else {"text": answer}
    try:
        score = float(_text(answer.get("upvoteCount")) or 0)
    except ValueError:  # "1.2k" is nothing to count with
        score = 0.0
    date = _text(answer.get("dateCreated") or answer.get("datePublished"))
    return Reply(_rich(answer.get("text")), accepted, score, date)


def _rich(value: Any) -> str:
    """A text in which schema.org allows HTML."""
    return html_text(_text(value))


def _flat(value: Any) -> str:
    return " ".join(_rich(value).split())


def _text(value: Any) -> str:
    value = next(iter(_list(value)), "")
    if isinstance(value, dict):  # {"@value": …}, or an item whose address is its name
        value = value.get("@value") or value.get("url") or value.get("@id") or ""
    return str(value).strip()


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
