"""How a fact is said and asked, by what kind of fact it is; with inflection by `inflect`.

A kind is told from the column's name and its values: a plural with numbers is counted, yes and no
make a property, a role is held by a person, what was done was done at a time, all else is a value
that something has.
"""

import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["count", "property", "person", "event", "value"]
_NUMBER = re.compile(r"\d[\d.,\u2009\u00a0]*")
_YEAR = re.compile(r".*\b[12]\d{3}\b.*")
_PARTICIPLE = re.compile(r"[a-z]+ed|built|born|begun|made|written|sold|bought|held|sent|met|won")
_ROLES = frozenset(
    """
owner keeper founder director manager author editor president chair leader head teacher designer
architect builder inventor composer painter photographer mayor minister captain coach caretaker
warden secretary treasurer contact chairman chairwoman spouse wife husband supervisor coordinator
maintainer developer translator publisher host
""".split()  # noqa: SIM905
)
_NAME = re.compile(r"^(?:[A-Z][\w.'\u2019-]*)(?:\s+(?:[A-Z][\w.'\u2019-]*|de|van|von|of|the))+$")

SAYS: dict[Kind, str] = {
    "count": "{subject} has {value} {noun}.",
    "property": "{subject} is {attribute}.",
    "person": "The {attribute} of {subject} is {value}.",
    "event": "{subject} was {attribute} {at} {value}.",
    "value": "The {attribute} of {subject} {is} {value}.",
}
DENIES = "{subject} is not {attribute}."
ASKS: dict[Kind, tuple[str, ...]] = {
    "count": (
        "How many {attribute} does {subject} have?",
        "What is the number of {attribute} of {subject}?",
        "How many {attribute} are there at {subject}?",
    ),
    "property": (
        "Is {subject} {attribute}?",
        "Would you call {subject} {attribute}?",
        "Is it true that {subject} is {attribute}?",
    ),
    "person": (
        "Who is the {attribute} of {subject}?",
        "What is the name of the {attribute} of {subject}?",
        "Which person is {subject}'s {attribute}?",
    ),
    "event": (
        "When was {subject} {attribute}?",
        "At what time was {subject} {attribute}?",
        "Can you tell me when {subject} was {attribute}?",
    ),
    "value": (
        "What {is} the {attribute} of {subject}?",
        "What {is} {subject}'s {attribute}?",
        "Can you tell me the {attribute} of {subject}?",
    ),
}


@dataclass(frozen=True)
class Phrasing:
    """How one column is said and asked; fields in braces are filled in."""

    attribute: str
    kind: Kind
    says: str
    asks: tuple[str, ...]
    verb: str = "is"  # {is}, as the attribute's number wants it

    def statement(self, subject: str, value: str) -> str:
        """The fact as a sentence."""
        if self.kind == "property" and value.casefold() == "no":
            return self._filled(DENIES, subject, value)
        return self._filled(self.says, subject, value)

    def question(self, number: int, subject: str) -> str:
        """One of the ways to ask for it."""
        return self._filled(self.asks[number % len(self.asks)], subject, "")

    def _filled(self, text: str, subject: str, value: str) -> str:
        noun = _counted(self.attribute, value)
        filled = text.format(
            subject=subject,
            attribute=self.attribute,
            value=value,
            noun=noun,
            at="in" if value.isdigit() else "on",
            **{"is": self.verb},
        )
        return filled[:1].upper() + filled[1:]


@functools.cache
def _engine() -> Any:
    import inflect

    return inflect.engine()


def is_plural(noun: str) -> bool:
    """Whether the last word of a noun is in the plural; "news" and "glass" are not."""
    last = noun.split()[-1]
    return _engine().singular_noun(last) not in (False, last)


def _counted(noun: str, value: str) -> str:
    """A plural noun as its number wants it: 1 dock, 12 docks."""
    if value.replace(",", "") not in ("1", "one") or not noun or not is_plural(noun):
        return noun
    *before, last = noun.split()
    return " ".join((*before, str(_engine().singular_noun(last))))


def phrasing(column: str, values: Iterable[str | None]) -> Phrasing:
    """How a column of these values is said and asked."""
    attribute = " ".join(re.sub(r"[_\s]+", " ", column).split())
    attribute = attribute if attribute.isupper() else attribute[:1].lower() + attribute[1:]
    kind = kind_of(attribute, [value for value in values if value is not None])
    verb = "are" if kind == "value" and is_plural(attribute) else "is"
    return Phrasing(attribute, kind, SAYS[kind], ASKS[kind], verb)


def kind_of(attribute: str, values: list[str]) -> Kind:
    """What kind of fact a column holds."""
    if values and all(value.casefold() in ("yes", "no") for value in values):
        return "property"
    if values and is_plural(attribute) and all(_NUMBER.fullmatch(value) for value in values):
        return "count"
    if values and _PARTICIPLE.fullmatch(attribute) and all(map(_YEAR.fullmatch, values)):
        return "event"
    last = attribute.split()[-1].casefold()
    named = sum(bool(_NAME.match(value)) for value in values)
    if last in _ROLES and values and named >= 0.8 * len(values):
        return "person"
    return "value"
