"""A folder of HTML files: passages, and question-answer pairs from pages that are FAQs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

from curate.errors import UserError
from curate.files import parse_json, read_text
from curate.record import Passage, Row

# "div" is one only for text that stands in it directly.
_BLOCKS = ("p", "div", "li", "dt", "dd", "td", "th", "pre", "blockquote", "figcaption", "summary")
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_FURNITURE = ("nav", "header", "footer", "aside", "script", "style", "noscript", "template", "form")


def read(
    path: str, name: str, licence: str = "", base_url: str = ""
) -> tuple[list[Row], list[Passage]]:
    """Read every ``*.html`` below the folder ``path``, in the order of their names.

    A FAQ page gives one row a pair; their context is the text of all its pairs, so that a
    question has to be looked up among its neighbours. Any other page gives a passage a heading.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(f"{path}: not a folder; a site source is a folder of HTML files")
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in (".html", ".htm"))
    if not files:
        raise UserError(f"{path}: no .html file in this folder")
    rows: list[Row] = []
    passages: list[Passage] = []
    for file in files:
        page = file.relative_to(folder).as_posix()
        soup = BeautifulSoup(read_text(file), "lxml")
        url = base_url.rstrip("/") + "/" + page if base_url else page
        about: dict[str, Any] = {
            "document_id": f"{name}/{page}",
            "source": name,
            "url": url,
            "licence": licence,
        }
        pairs = faq_pairs(soup, str(file))
        if pairs:
            context, starts = _faq_context(pairs)
            heading = _heading(soup)
            passages.append(Passage(context=context, heading=heading, **about))
            rows += [
                Row(
                    question=question,
                    context=context,
                    answers=[answer],
                    answer_starts=[start],
                    sufficient=True,
                    source_id=f"{page}#{index}",
                    **about,
                ).stamped()
                for index, ((question, answer), start) in enumerate(zip(pairs, starts, strict=True))
            ]
        else:
            passages += [
                Passage(context=text, heading=heading, **about) for heading, text in sections(soup)
            ]
    return rows, passages


def faq_pairs(soup: BeautifulSoup, where: str) -> list[tuple[str, str]]:
    """Questions with their answers: schema.org `FAQPage` first, `<details>` where there is none."""
    pairs = [pair for page in _faq_pages(soup, where) for pair in _schema_pairs(page)]
    if not pairs:
        for details in soup.find_all("details"):
            summary = details.find("summary")
            if summary is not None:
                question = _flat(summary)
                summary.extract()
                pairs.append((question, _flat(details)))
    return [(question, answer) for question, answer in dict(pairs).items() if question and answer]


def _faq_pages(soup: BeautifulSoup, where: str) -> Iterator[dict[str, Any]]:
    for number, script in enumerate(soup.find_all("script", type="application/ld+json"), 1):
        try:
            found = parse_json(script.get_text())
        except json.JSONDecodeError as error:  # lxml does not tell the line in the file
            raise UserError(
                f"{where}: JSON-LD block {number}, line {error.lineno} of it: "
                f"not valid JSON: {error.msg}"
            ) from error
        items = found if isinstance(found, list) else [found]
        for item in items:
            if isinstance(item, dict):
                for node in [item, *_as_list(item.get("@graph"))]:
                    if isinstance(node, dict) and "FAQPage" in _as_list(node.get("@type")):
                        yield node


def _schema_pairs(page: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for entity in _as_list(page.get("mainEntity")):
        if isinstance(entity, dict) and "Question" in _as_list(entity.get("@type")):
            for answer in _as_list(entity.get("acceptedAnswer"))[:1]:
                if isinstance(answer, dict):
                    text = BeautifulSoup(str(answer.get("text", "")), "lxml")  # HTML is allowed
                    yield " ".join(str(entity.get("name", "")).split()), _flat(text)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _faq_context(pairs: list[tuple[str, str]]) -> tuple[str, list[int]]:
    """One text of all the pairs, and where each answer starts in it."""
    text = ""
    starts: list[int] = []
    for question, answer in pairs:
        text += f"{question}\n"
        starts.append(len(text))
        text += f"{answer}\n\n"
    return text.rstrip(), starts


def sections(soup: BeautifulSoup) -> list[tuple[str, str]]:
    """The main content as (heading path, text): a new one at each heading."""
    main = soup.find("main") or soup.find("article") or soup.body or soup
    for furniture in main.find_all(_FURNITURE):
        furniture.decompose()
    found: list[tuple[str, list[str]]] = []
    path: list[tuple[int, str]] = []
    for element in main.find_all([*_HEADINGS, *_BLOCKS]):
        if element.name in _HEADINGS:
            level = int(element.name[1])
            path = [*(entry for entry in path if entry[0] < level), (level, _flat(element))]
        elif text := _own_text(element):
            heading = " › ".join(name for _, name in path)
            if not found or found[-1][0] != heading:
                found.append((heading, []))
            found[-1][1].append(text)
    return [(heading, "\n".join(texts)) for heading, texts in found]


def _own_text(block: Tag) -> str:
    """The text of a block without that of the blocks and headings inside it."""
    texts: list[str] = []
    waiting = block.contents[::-1]
    while waiting:
        node = waiting.pop()
        if not isinstance(node, Tag):
            texts += [node] if type(node) is NavigableString else []  # a comment is another type
        elif node.name in (*_BLOCKS, *_HEADINGS, "br"):
            texts.append(" ")
        else:
            waiting += node.contents[::-1]
    return " ".join("".join(texts).split())


def _heading(soup: BeautifulSoup) -> str:
    element = soup.find("h1") or soup.find("title")
    return _flat(element) if element is not None else ""


def _flat(element: Tag) -> str:
    """The text on one line; what a reader sees on two lines does not run together."""
    for part in element.find_all((*_BLOCKS, *_HEADINGS, "br", "tr")):
        part.insert_before(" ")
        part.insert_after(" ")
    return " ".join(element.get_text().split())
