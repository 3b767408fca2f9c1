"""Spelling of questions, on request: never of answers, nor of words that the context knows.

symspellpy finds the nearest word of a frequency dictionary that comes with it (English).
"""

import functools
import re
from typing import Any

from curate.text import words

# Shorter words are as near to each other as to their own misspellings.
SHORTEST = 4
FARTHEST = 2  # edits; one for words of up to six letters
_WORD = re.compile(r"[A-Za-z]+(?:['’][a-z]+)?")


@functools.cache
def _dictionary() -> Any:
    from importlib import resources

    from symspellpy import SymSpell

    found = SymSpell(max_dictionary_edit_distance=FARTHEST)
    file = resources.files("symspellpy") / "frequency_dictionary_en_82_765.txt"
    found.load_dictionary(str(file), 0, 1)
    return found


def corrected(question: str, context: str) -> str:
    """The question with words put right that neither the dictionary nor the context holds.

    Capitalised words may be names, and stay, but for the question's first one.
    """
    known = set(words(context))
    start = len(question) - len(question.lstrip())

    def right(match: re.Match[str]) -> str:
        word = match.group()
        is_first = match.start() == start
        if len(word) < SHORTEST or "'" in word or "’" in word or word.casefold() in known:
            return word
        if not word.islower() and not (is_first and word[1:].islower()):
            return word
        found = _nearest(word.casefold())
        return found.capitalize() if word[0].isupper() else found

    return _WORD.sub(right, question)


@functools.lru_cache(maxsize=100_000)
def _nearest(word: str) -> str:
    from symspellpy import Verbosity

    distance = 1 if len(word) <= 6 else FARTHEST
    found = _dictionary().lookup(word, Verbosity.TOP, max_edit_distance=distance)
    return str(found[0].term) if found else word
