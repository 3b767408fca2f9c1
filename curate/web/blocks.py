"""A page as a reader meets it: headings and blocks of text, in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

# What begins and ends a line of text.
_BLOCKS = (
    *("p", "div", "ul", "ol", "li", "dl", "dt", "dd", "table", "caption", "tr", "td", "th", "hr"),
    *("blockquote", "figure", "figcaption", "address", "details", "summary", "fieldset", "button"),
    *("main", "article", "section"),
)
HEADINGS = ("h1", "h2", "h3", "h4", "h5", "h6")
BETWEEN_HEADINGS = " › "  # in a heading path
_UNSEEN = frozenset(("script", "style", "noscript", "template", "head"))
_END = object()  # of a block, in a walk through a page


@dataclass(frozen=True)
class Block:
    """A line of text, or lines as they stand in ``<pre>``; ``level`` is a heading's, else 0."""

    text: str
    level: int = 0


def blocks(root: Tag) -> Iterator[Block]:
    """What stands in ``root``, every text once; what a reader sees apart does not run together."""
    line: list[str] = []

    def ended() -> Iterator[Block]:
        text = " ".join("".join(line).split())
        line.clear()
        if text:
            yield Block(text)

    waiting: list[Any] = [_END, *root.contents[::-1]]
    while waiting:
        node = waiting.pop()
        if node is _END:
            yield from ended()
        elif not isinstance(node, Tag):
            line += [node] if type(node) is NavigableString else []  # a comment is another type
        elif node.name in HEADINGS:
            yield from ended()
            if text := " ".join(node.get_text().split()):
                yield Block(text, int(node.name[1]))
        elif node.name == "pre":
            yield from ended()
            if text := _verbatim(node):
                yield Block(text)
        elif node.name == "br":
            line.append(" ")
        elif node.name not in _UNSEEN:
            if node.name in _BLOCKS:
                yield from ended()
                waiting.append(_END)
            waiting += node.contents[::-1]


def _verbatim(node: Tag) -> str:
    lines = [line.rstrip() for line in node.get_text().expandtabs().splitlines()]
    return "\n".join(lines).strip("\n")


def text_of(root: Tag) -> str:
    """The text of an element, a line a block."""
    return "\n".join(block.text for block in blocks(root))


def html_text(html: str) -> str:
    """The text of a piece of HTML, a line a block."""
    return text_of(BeautifulSoup(html, "lxml"))


def flat(root: Tag) -> str:
    """The text of an element on one line."""
    return " ".join(text_of(root).split())
