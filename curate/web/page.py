"""One HTML page as rows and passages."""

from dataclasses import dataclass, field
from typing import Any

from bs4 import BeautifulSoup
from bs4.dammit import EncodingDetector

from curate.record import Passage, Row
from curate.sources.forum import thread
from curate.web import pairs as patterns
from curate.web import schema_org
from curate.web.blocks import flat
from curate.web.pairs import Pair
from curate.web.sections import Section, headed_pairs, main_element, sections, without_furniture

# Characters of a context: a model of 2,048 tokens reads it, with a question and an answer.
CONTEXT_CHARS = 4_000


@dataclass
class PageContent:
    """What a page gave; ``faults`` are what it declares wrongly."""

    rows: list[Row] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read(
    html: str, page: str, source: str, url: str, licence: str = "", retrieved_at: str = ""
) -> PageContent:
    """Read a page; ``page`` is its name within the ``source``.

    Each question-answer pair gives a row. Its context is the text of neighbouring pairs, so that a
    question has to be looked up among others. What else the page says gives passages by heading.
    A licence that the page states goes before the one given.
    """
    soup = BeautifulSoup(html, "lxml")
    declared = schema_org.read(soup, html)
    title = _title(soup)
    about: dict[str, Any] = {
        "document_id": f"{source}/{page}",
        "source": source,
        "url": url,
        "title": title,
        "licence": _licence(soup) or declared.licence or licence,
        "retrieved_at": retrieved_at,
    }
    without_furniture(soup)
    name = next((flat(h1) for h1 in soup.find_all("h1")), "") or title
    shown = patterns.taken(soup)
    main = main_element(soup)
    headed, rest = headed_pairs(sections(soup if main is None else main))
    pairs = patterns.unique([*declared.pairs, *shown, *headed])
    found = PageContent(faults=declared.faults)
    for group in _groups(pairs):
        _add_pairs(found, group, page, name, about)
    for one in declared.threads:
        one.identifier, one.url, one.licence = f"{page}#thread", url, about["licence"]
        row = thread.to_row(one, source, retrieved_at=retrieved_at)
        row.document_id = about["document_id"]
        found.rows.append(row.stamped())
    for heading, text in _passages(rest, "" if main else _main_text(html), declared):
        found.passages.append(Passage(context=text, heading=heading, **about))
    return found


def decode(raw: bytes, declared: str | None = None) -> str:
    """A page's text: UTF-8 where it is valid UTF-8, else as the server or the page declares.

    Servers often declare wrongly, but no text in another encoding is valid UTF-8 by chance. What
    fits nothing is read as Windows-1252, as browsers do, with U+FFFD where that has no character.
    """
    names = EncodingDetector.find_declared_encoding(raw, is_html=True, search_entire_document=False)
    for encoding in ("utf-8-sig", declared, names):
        try:
            if encoding:
                return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return raw.decode("windows-1252", "replace")


def _title(soup: BeautifulSoup) -> str:
    element = soup.find("title")
    return flat(element) if element is not None else ""


def _licence(soup: BeautifulSoup) -> str:
    """What ``rel=license`` links to, or a Dublin Core field says."""
    link = soup.select_one("a[rel~=license][href], link[rel~=license][href]")
    if link is not None:
        return str(link["href"]).strip()
    meta = soup.select_one("meta[name='dcterms.license' i], meta[name='dc.rights' i]")
    return str(meta.get("content", "")).strip() if meta is not None else ""


def _groups(pairs: list[Pair]) -> list[list[Pair]]:
    """Neighbouring pairs that fit one context; a pair too long for it stands alone."""
    groups: list[list[Pair]] = []
    size = 0
    for pair in pairs:
        length = len(pair.question) + len(pair.answer) + 3
        if not groups or size + length > CONTEXT_CHARS:
            groups.append([])
            size = 0
        groups[-1].append(pair)
        size += length
    return groups


def _add_pairs(
    found: PageContent, group: list[Pair], page: str, name: str, about: dict[str, Any]
) -> None:
    context = ""
    starts: list[int] = []
    for pair in group:
        context += f"{pair.question}\n"
        starts.append(len(context))
        context += f"{pair.answer}\n\n"
    context = context.rstrip()
    found.passages.append(Passage(context=context, heading=name, **about))
    for pair, start in zip(group, starts, strict=True):
        row = Row(
            question=pair.question,
            context=context,
            answers=[pair.answer],
            answer_starts=[start],
            sufficient=True,
            heading=pair.heading or name,
            source_id=f"{page}#{len(found.rows)}",
            **about,
        )
        found.rows.append(row.stamped())


def _main_text(html: str) -> str:
    """Letters and digits of what trafilatura takes for the main content; empty where it finds none.

    It tells navigation from text on pages that do not (Barbaresi 2021), but folds code to one line
    and loses definitions: so it is asked only there, and says which of the page's blocks stay.
    """
    import trafilatura

    return _letters(trafilatura.extract(html, include_comments=False, favor_recall=True) or "")


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _passages(
    found: list[Section], main: str, declared: schema_org.Declared
) -> list[tuple[str, str]]:
    """Heading paths and texts, without what is furniture or said in declared pairs and threads."""
    said = [pair.question + pair.answer for pair in declared.pairs]
    said += [t.body + "".join(reply.text for reply in t.replies) for t in declared.threads]
    known = _letters(" ".join(said))
    passages: list[tuple[str, str]] = []
    for section in found:
        text = ""
        for block in section.texts:
            letters = _letters(block)
            if letters in known or letters[:60] not in (main or letters):
                continue
            if text and len(text) + len(block) > CONTEXT_CHARS:
                passages.append((section.heading, text))
                text = ""
            text += f"\n{block}" if text else block
        if text:
            passages.append((section.heading, text))
    return passages
