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

# What begins and ends a line of text.
_BLOCKS = (
    *("p", "div", "ul", "ol", "li", "dl", "dt", "dd", "table", "tr", "td", "th", "pre", "hr"),
    *("blockquote", "figure", "figcaption", "details", "summary", "main", "article", "section"),
)
Pairs = list[tuple[str, str]]  # questions and their answers
_END = object()  # of a block, in a walk through a page
_HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
_FURNITURE = ("nav", "header", "footer", "aside", "script", "style", "noscript", "template", "form")


def read(
    path: str, name: str, licence: str = "", base_url: str = ""
) -> tuple[list[Row], list[Passage]]:
    """Read every ``*.html`` below the folder ``path``, in the order of their names.

    A page's question-answer pairs give a row each; their context is the text of all its pairs, so
    that a question has to be looked up among its neighbours. What a page says beside them gives a
    passage a heading. A page that schema.org declares to be a FAQ says nothing beside them.
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
        declared, heading = schema_pairs(soup, str(file)), _heading(soup)
        for furniture in soup.find_all(_FURNITURE):
            furniture.decompose()
        pairs = declared or details_pairs(soup)
        if pairs:
            context, starts = _faq_context(pairs)
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
        if not declared:
            passages += [
                Passage(context=text, heading=above, **about) for above, text in sections(soup)
            ]
    return rows, passages


def schema_pairs(soup: BeautifulSoup, where: str) -> Pairs:
    """Questions with their answers, as schema.org's `FAQPage` declares them."""
    return _whole([pair for page in _faq_pages(soup, where) for pair in _schema_pairs(page)])


def details_pairs(soup: BeautifulSoup) -> Pairs:
    """Questions with their answers from `<details>`, which are taken out of the page."""
    pairs: Pairs = []
    for details in soup.find_all("details"):
        summary = details.find("summary")
        if summary is not None:
            question, answer = _flat(summary.extract()), _flat(details)
            if question and answer:
                pairs.append((question, answer))
                details.extract()
            else:
                details.insert(0, summary)
    return _whole(pairs)


def _whole(pairs: Pairs) -> Pairs:
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


def _faq_context(pairs: Pairs) -> tuple[str, list[int]]:
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
    found: list[tuple[str, list[str]]] = []
    path: list[tuple[int, str]] = []
    line: list[str] = []

    def end_line() -> None:
        text = " ".join("".join(line).split())
        line.clear()
        if text:
            heading = " › ".join(name for _, name in path)
            if not found or found[-1][0] != heading:
                found.append((heading, []))
            found[-1][1].append(text)

    waiting: list[Any] = [_END, main]
    while waiting:
        node = waiting.pop()
        if node is _END:
            end_line()
        elif not isinstance(node, Tag):
            line += [node] if type(node) is NavigableString else []  # a comment is another type
        elif node.name in _HEADINGS:
            end_line()
            level = int(node.name[1])
            path = [*(entry for entry in path if entry[0] < level), (level, _flat(node))]
        elif node.name == "br":
            line.append(" ")
        else:
            if node.name in _BLOCKS:
                end_line()
                waiting.append(_END)
            waiting += node.contents[::-1]
    return [(heading, "\n".join(texts)) for heading, texts in found]


def _heading(soup: BeautifulSoup) -> str:
    element = soup.find("h1") or soup.find("title")
    return _flat(element) if element is not None else ""


def _flat(element: Tag) -> str:
    """The text on one line; what a reader sees on two lines does not run together."""
    for part in element.find_all((*_BLOCKS, *_HEADINGS, "br")):
        part.insert_before(" ")
        part.insert_after(" ")
    return " ".join(element.get_text().split())
