"""Questions with their answers from the patterns in which pages show them to people.

A pattern alone makes no pair: what is opened, defined or headed must read like a question, or
"Show more" would be asked and a glossary would be an interview. Elements that gave a pair are
taken out of the page, so that what is left of it is passages.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from bs4 import BeautifulSoup, Tag
from bs4.element import NavigableString

from curate.web.blocks import BETWEEN_HEADINGS, HEADINGS, flat, text_of
from curate.web.questions import bare_answer, bare_question, is_question


@dataclass(frozen=True)
class Pair:
    """A question, its answer, and the headings above it."""

    question: str
    answer: str
    heading: str = ""


def taken(soup: BeautifulSoup) -> list[Pair]:
    """Pairs of ``<details>``, accordions and definition lists, which leave the page."""
    return [*_details(soup), *_accordions(soup), *_question_classes(soup), *_definitions(soup)]


def unique(pairs: list[Pair]) -> list[Pair]:
    """Pairs of which both halves are there, each question once, as it was first answered."""
    found: dict[str, Pair] = {}
    for pair in pairs:
        if pair.question and pair.answer:
            found.setdefault(pair.question.casefold(), pair)
    return list(found.values())


def pair_of(question: str, answer: str, heading: str = "") -> Pair:
    """A pair without the labels that lists put before its halves."""
    return Pair(bare_question(question), bare_answer(answer), heading)


def _details(soup: BeautifulSoup) -> Iterator[Pair]:
    for details in soup.find_all("details"):
        summary = details.find("summary")
        if summary is not None and is_question(flat(summary)):
            yield from _pair(summary, [details])


def _accordions(soup: BeautifulSoup) -> Iterator[Pair]:
    """A control that says which panel it opens: ARIA's attribute, or Bootstrap's."""
    attributes = ("aria-controls", "data-bs-target", "data-target", "href")
    controls = "[aria-controls], [data-bs-target], [data-target], [data-toggle], [data-bs-toggle]"
    for control in soup.select(controls):
        named = next((str(control[name]) for name in attributes if control.get(name)), "")
        panel = soup.find(id=named.lstrip("#")) if named else None
        if panel is not None and is_question(flat(control)) and not _holds(panel, control):
            yield from _pair(_with_its_heading(control), [panel])


def _with_its_heading(control: Tag) -> Tag:
    heading = control.find_parent(HEADINGS)
    return heading if isinstance(heading, Tag) else control


_ASKS = re.compile(r"(?:^|[-_])(?:question|accordion[-_]?(?:header|title|button))(?:$|[-_])")
_ANSWERS = re.compile(r"(?:^|[-_])(?:answer|accordion[-_]?(?:body|content|panel))(?:$|[-_])")


def _question_classes(soup: BeautifulSoup) -> Iterator[Pair]:
    """Neighbours whose classes say what they are: ``faq-question`` and ``faq-answer``."""
    for asked in soup.find_all(class_=_ASKS):
        answer = asked.find_next_sibling()
        named = " ".join(answer.get_attribute_list("class")) if answer is not None else ""
        answers = answer is not None and any(map(_ANSWERS.search, named.split()))
        if answer is not None and answers and is_question(flat(asked)):
            yield from _pair(asked, [answer])


def _definitions(soup: BeautifulSoup) -> Iterator[Pair]:
    for term in soup.find_all("dt"):
        if not is_question(flat(term)):
            continue
        answers = []
        for sibling in term.find_next_siblings():
            if sibling.name != "dd":
                break
            answers.append(sibling)
        yield from _pair(term, answers)


def _pair(asked: Tag, answers: list[Tag]) -> Iterator[Pair]:
    """The pair, and its elements out of the page; without an answer they stay where they are."""
    heading, question = heading_above(asked), flat(asked)
    place = NavigableString("")
    asked.replace_with(place)  # it may stand inside what answers it
    answer = "\n".join(text_of(one) for one in answers).strip()
    if not answer:
        place.replace_with(asked)
        return
    for element in answers:
        element.extract()
    yield pair_of(question, answer, heading)


def heading_above(element: Tag) -> str:
    """The headings over an element, the outermost first, ``›`` between."""
    path: list[str] = []
    level = int(element.name[1]) if element.name in HEADINGS else 7
    for above in element.find_all_previous(HEADINGS):
        if int(above.name[1]) < level and not _holds(above, element):
            level = int(above.name[1])
            path.append(flat(above))
    return BETWEEN_HEADINGS.join(text for text in path[::-1] if text)


def _holds(outer: Tag, inner: Tag) -> bool:
    return any(parent is outer for parent in inner.parents)  # `in` would compare their texts
