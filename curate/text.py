"""Texts as answers are compared: SQuAD's normalisation, and finding an answer in a context."""

import functools
import itertools
import re
import string
from collections.abc import Iterable, Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def storable(text: str) -> str:
    """Without what is no text: halves of characters, and zero bytes, which PostgreSQL refuses."""
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return whole.replace("\0", "")


def normalise(text: str) -> str:
    """Lower case, without punctuation and articles, white space folded (SQuAD's definition)."""
    lowered = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", lowered).split())


# For *finding* an answer, dashes and quotes part words as they do for a reader; for *scoring*
# one, SQuAD's definition above deletes them.
_WORDS = re.compile(r"\w+(?:[.,]\d+)*", re.UNICODE)
_IS_ARTICLE = frozenset(("a", "an", "the")).__contains__


def words(text: str) -> list[str]:
    """The words of a text, folded in case, without articles; numbers keep their decimals."""
    return list(itertools.filterfalse(_IS_ARTICLE, _WORDS.findall(text.casefold())))


# Words that shape a question without saying what it is about.
_SMALL_WORDS = """
who whom whose what which when where why how is are was were be been do does did has have had can
could will would should may might must in on at by for from to of with and or as it its he she they
this that these those there his her their not never s t
"""
_SMALL = frozenset(_SMALL_WORDS.split())
_ASKING = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b", re.IGNORECASE)


def asking_word(question: str) -> str:
    """The word that says what kind of thing is asked for; empty for a yes–no question."""
    found = _ASKING.search(question)
    return found.group().casefold() if found else ""


def content_words(text: str) -> set[str]:
    """The words that carry the meaning, folded in case."""
    return {word for word in words(text) if word not in _SMALL}


@functools.lru_cache(maxsize=10_000)
def _joined(context: str) -> str:
    return f" {' '.join(words(context))} "


def holds_any(context: str, answers: Iterable[str]) -> bool:
    """Whether any of the answers occurs in the context as a run of whole words.

    An answer without a word to compare ("A", "%") is looked for as it is written.
    """
    haystack = _joined(context)
    for answer in answers:
        found = words(answer)
        if found and f" {' '.join(found)} " in haystack:
            return True
        if not found and answer.strip() and answer.strip() in context:
            return True
    return False


def nearest(context: str, answer: str, hint: int) -> int:
    """Start of the occurrence of ``answer`` in ``context`` that is nearest to ``hint``, or −1."""
    if not answer:
        return -1
    if context.startswith(answer, hint) and hint >= 0:
        return hint
    after = context.find(answer, max(hint, 0))
    before = context.rfind(answer, 0, max(hint, 0) + len(answer))
    found = [start for start in (before, after) if start >= 0]
    return min(found, key=lambda start: abs(start - hint), default=-1)


def find_answer(context: str, answer: str, start: int = 0, end: int | None = None) -> int:
    """Where an answer without an offset stands as whole words; −1: it is no span of the context.

    "no" is looked for neither in "north" nor as a word: it is said of the context, not by it.
    """
    if not answer.strip() or normalise(answer) in ("yes", "no"):
        return -1
    edges = [r"(?<!\w)" if answer[0].isalnum() else "", r"(?!\w)" if answer[-1].isalnum() else ""]
    found = re.compile(re.escape(answer).join(edges)).search(context, start, end or len(context))
    if found is not None:
        return found.start()
    # Scripts without spaces have no edges of words; a short answer may be part of anything.
    return context.find(answer, start, end or len(context)) if not answer.isascii() else -1


def fitting(start: int, context: str) -> int:
    """An offset that fits its column; one outside the context stays outside, to be put right."""
    return max(-2, min(start, len(context)))  # −1 has a meaning: no span


def unique(values: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Pairs of answer and start without repetitions, in their first order."""
    return list(dict.fromkeys(values))
