"""Names and numbers in a text, by rule: enough to put one in the place of another of its kind.

A statistical tagger would find more, at a hundred times the cost; what an edit needs is that the
two are alike, and that is told by their form. Kinds: ``year``, ``date``, ``money``, ``percent``,
``number``, and ``name``.
"""

import functools
import re
from dataclasses import dataclass

_MONTH = "January|February|March|April|May|June|July|August|September|October|November|December"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"
_SCALE = r"(?:\s(?:hundred|thousand|million|billion|trillion))?"
_PATTERNS = (
    ("date", rf"\b\d{{1,2}} (?:{_MONTH})(?: \d{{4}})?\b|\b(?:{_MONTH}) \d{{1,2}}(?:, \d{{4}})?\b"),
    ("date", rf"\b(?:{_MONTH}) \d{{4}}\b"),
    ("money", rf"[$€£¥]\s?(?:{_NUMBER}){_SCALE}"),
    ("percent", rf"\b(?:{_NUMBER})\s?(?:%|percent\b|per cent\b)"),
    ("year", r"\b1[0-9]{3}\b(?!,\d)|\b20[0-9]{2}\b(?!,\d)"),
    ("number", rf"\b(?:{_NUMBER}){_SCALE}\b"),
    # Capitalised words, with small ones between them: "Duke of York", "Bank of the West".
    (
        "name",
        r"\b[A-Z][\w'’-]*(?:\s(?:(?:of|the|de|la|von|van|der|and the|of the)\s)?[A-Z][\w'’-]*)*",
    ),
)
_FINDER = re.compile("|".join(f"(?P<k{n}>{pattern})" for n, (_, pattern) in enumerate(_PATTERNS)))
# Capitalised for their place, not because they name anything.
_SMALL = """
the a an this that these those it its he she they we i you his her their our my your there here who
whom whose what which when where why how is are was were do does did has have had can could will
would should may might must in on at by for from to of with without and or but if as after before
during since until while although though because however many most some all each every both another
other such one two three first second last also not no yes according among between about under over
into through against upon via per fourth fifth sixth seventh eighth ninth tenth next former latter
"""
_NO_NAMES = frozenset(_SMALL.split())


_MODAL = re.compile(r"\b(?:do|does|did|can|could|will|would|shall|should|may|might|must)\b[^.?!]*$")
_ABBREVIATION = re.compile(r"\b(?:St|Mt|Ft|Dr|Mr|Mrs|Ms|Jr|Sr|No|vs|[A-Z])\.$")


@dataclass(frozen=True)
class Mention:
    """A name or number where it stands."""

    start: int
    end: int
    text: str
    kind: str
    attributive: bool = False  # it qualifies a noun: "Polish" in "the Polish army"


@functools.lru_cache(maxsize=2_000)
def mentions(text: str) -> tuple[Mention, ...]:
    """All of them, in order; a sentence's first word is a name only where it goes on as one."""
    found = []
    for match in _FINDER.finditer(text):
        kind = _PATTERNS[int(str(match.lastgroup)[1:])][0]
        start, end = match.span()
        if kind == "name":
            start = _behind_small_words(text, start, end)
            if start >= end or _ABBREVIATION.search(text, start, end + 1):
                continue
        # Behind "did" or "can" a bare verb may follow its subject: "did Ada leave".
        attributive = kind == "name" and _qualifies(text, end) and not _MODAL.search(text[:start])
        found.append(Mention(start, end, text[start:end], kind, attributive))
    named = {text[m.start : m.end] for m in found if not _opens_a_sentence(text, m.start)}
    return tuple(
        mention
        for mention in found
        # A single word at the start of a sentence may be any word: "Following this, …".
        if mention.kind != "name"
        or " " in mention.text
        or mention.text in named
        or not _opens_a_sentence(text, mention.start)
    )


def _opens_a_sentence(text: str, start: int) -> bool:
    return re.search(r"(?:^|[.!?:\n][\"'”’)\]]*)\s*$", text[max(0, start - 6) : start]) is not None


def _qualifies(text: str, end: int) -> bool:
    """Whether a noun seems to follow: a word in small letters that is neither small nor a verb."""
    following = re.match(r" ([a-z]+)", text[end : end + 30])
    if following is None:
        return False
    word = following.group(1)
    return word not in _NO_NAMES and not word.endswith(("ed", "s"))


def _behind_small_words(text: str, start: int, end: int) -> int:
    """Where the name begins, once the words that open a sentence are passed over."""
    while start < end:
        word = re.match(r"[\w'’-]+", text[start:end])
        if word is None or re.split(r"['’]", word.group().casefold())[0] not in _NO_NAMES:
            return start
        start += word.end()
        start += len(text[start:end]) - len(text[start:end].lstrip())
    return start


def alike(one: Mention, other: Mention) -> bool:
    """Whether one can stand for the other: of one kind, and of about one form."""
    if one.kind != other.kind:
        return False
    if one.kind != "name":
        return True
    return (
        one.text.isupper() == other.text.isupper()
        and one.attributive == other.attributive
        and (len(one.text.split()) == 1) == (len(other.text.split()) == 1)
        and abs(len(one.text.split()) - len(other.text.split())) <= 1
    )
