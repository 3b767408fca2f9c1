"""The rest of a page: question headings with the text beneath them, and passages by heading."""

from dataclasses import dataclass, field, replace

from bs4 import BeautifulSoup, Tag

from curate.web.blocks import BETWEEN_HEADINGS, Block, blocks
from curate.web.pairs import Pair, pair_of
from curate.web.questions import completed, is_question

_FURNITURE = (
    "nav, header, footer, aside, form, dialog, [role=navigation], [role=banner], "
    "[role=contentinfo], [role=search], [role=complementary]"
)
_PERMALINKS = frozenset("¶#§🔗") | {""}


@dataclass
class Section:
    """The text beneath one heading, up to the next; ``path`` are the headings above it."""

    path: list[Block]
    texts: list[str] = field(default_factory=list)
    asks: bool = False

    @property
    def heading(self) -> str:
        """The path as a text."""
        return BETWEEN_HEADINGS.join(block.text for block in self.path)


def without_furniture(soup: BeautifulSoup) -> None:
    """Take navigation, lists of links, page head and foot, and forms out of a page, in place.

    The head of an article holds its title, and some sites stand in a form as a whole: those stay.
    """
    for element in soup.select(_FURNITURE):
        own = element.name in ("header", "footer") and element.find_parent(("main", "article"))
        if not element.decomposed and not own and element.find(("main", "article")) is None:
            element.decompose()
    for listed in soup.find_all(("ul", "ol")):
        if not listed.decomposed and _is_link_list(listed):
            listed.decompose()
    for link in soup.select('a[href^="#"]'):  # the sign behind a heading that links to it
        if link.get_text().strip() in _PERMALINKS and link.find("img") is None:
            link.decompose()


def _is_link_list(element: Tag) -> bool:
    """A table of contents, or a menu: several links, and hardly a letter beside them."""
    links = element.find_all("a")
    letters = sum(len(link.get_text()) for link in links)
    return len(links) > 2 and letters > 0.8 * len(" ".join(element.get_text().split()))


def main_element(soup: BeautifulSoup) -> Tag | None:
    """What the page itself says is its content; of several articles none is."""
    main = soup.find("main") or soup.find(role="main")
    articles = soup.find_all("article", limit=2)
    found = main or (articles[0] if len(articles) == 1 else None)
    return found if isinstance(found, Tag) else None


def sections(root: Tag) -> list[Section]:
    """The content by heading; text before any heading has an empty path."""
    found = [Section([])]
    for block in blocks(root):
        if block.level:
            path = [above for above in found[-1].path if above.level < block.level]
            if path:
                block = replace(block, text=completed(path[-1].text, block.text))
            found.append(Section([*path, block], asks=is_question(block.text)))
        else:
            found[-1].texts.append(block.text)
    return found


def headed_pairs(found: list[Section]) -> tuple[list[Pair], list[Section]]:
    """Pairs of question headings, and the sections that are in none.

    What stands under a question with headings of its own belongs to the answer, headings too,
    unless they ask something themselves.
    """
    pairs: list[Pair] = []
    rest: list[Section] = []
    asked: Section | None = None
    answer: list[str] = []

    def ended() -> None:
        if asked is not None and answer:
            *above, question = asked.path
            heading = BETWEEN_HEADINGS.join(block.text for block in above)
            pairs.append(pair_of(question.text, "\n".join(answer), heading))

    for section in found:
        below = asked is not None and any(above is asked.path[-1] for above in section.path)
        if below and not section.asks:
            answer += [section.path[-1].text, *section.texts]
            continue
        ended()
        asked, answer = (section, list(section.texts)) if section.asks else (None, [])
        if asked is None and section.texts:
            rest.append(section)
    ended()
    return pairs, rest
