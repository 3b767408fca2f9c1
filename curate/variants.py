"""Other forms of an answer: inflected, numbers in words or figures, dates in another order.

Both sides are brought to one form, token by token, and compared there.
"""

import functools
import re
import threading
from collections.abc import Iterable
from typing import Any

from curate.text import words

_MONTH_NAMES = """
january february march april may june july august september october november december
"""
_MONTHS = {name: number for number, name in enumerate(_MONTH_NAMES.split(), 1)}
_MONTHS |= {name[:3]: number for name, number in _MONTHS.items()}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_DATES = (
    (re.compile(rf"\b{_DAY}(?: of)? ({_MONTH})\b,? (\d{{4}})\b"), "dmy"),
    (re.compile(rf"\b({_MONTH}) {_DAY},? (\d{{4}})\b"), "mdy"),
    (re.compile(r"\b(\d{4})-(\d{2})-(\d{2})\b"), "ymd"),
)
_GROUPED = re.compile(r"(?<=\d),(?=\d{3}\b)")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b")
_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
"""
_TENS = """
twenty thirty forty fifty sixty seventy eighty ninety
"""
_ORDINALS = """
zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth
fourteenth fifteenth sixteenth seventeenth eighteenth nineteenth
"""
_VALUES = {word: value for value, word in enumerate(_SMALL.split())}
_VALUES |= {word: value for value, word in enumerate(_ORDINALS.split())}
_VALUES |= {word: 10 * value for value, word in enumerate(_TENS.split(), 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SPELT = frozenset([*_VALUES, *_SCALES, *_MONTHS])  # these have forms that share no letter
LONG = 5  # letters; of shorter words some change their beginning, as "dying" and "die"


class _Stemmer(threading.local):
    """One stemmer a thread: it keeps the word that it works on in itself."""

    def __init__(self) -> None:
        import snowballstemmer

        self.stem: Any = snowballstemmer.stemmer("english").stemWord


@functools.cache
def _stemmer() -> _Stemmer:
    return _Stemmer()


@functools.lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return str(_stemmer().stem(word))


def canonical(text: str) -> list[str]:
    """Tokens in the one form: stems, figures, dates as year-month-day."""
    text = _GROUPED.sub("", text.casefold())
    for pattern, order in _DATES:
        text = pattern.sub(functools.partial(_date, order), text)
    text = _ORDINAL.sub(r"\1", text)
    return [word if "-" in word else _stem(word) for word in _figures(_tokens(text))]


def _date(order: str, match: re.Match[str]) -> str:
    parts = dict(zip(order, match.groups(), strict=True))
    month = _MONTHS.get(parts["m"]) or int(parts["m"])
    return f"{int(parts['y']):04}-{month:02}-{int(parts['d']):02}"


_ISO = re.compile(r"\d{4}-\d{2}-\d{2}")


def _tokens(text: str) -> list[str]:
    """Words as everywhere, dates kept whole."""
    found: list[str] = []
    end = 0
    for match in _ISO.finditer(text):
        found += [*words(text[end : match.start()]), match.group()]
        end = match.end()
    return found + words(text[end:])


def _figures(tokens: list[str]) -> list[str]:
    """Runs of number words as one figure: "two hundred and five" becomes "205"."""
    result: list[str] = []
    total = current = 0
    open_run = False

    def close() -> None:
        nonlocal total, current, open_run
        if open_run:
            result.append(str(total + current))
        total, current, open_run = 0, 0, False

    for token in tokens:
        if token in _VALUES and (not open_run or current % 10 == 0):
            current, open_run = current + _VALUES[token], True
        elif token in _SCALES and (open_run or (result and result[-1].isdecimal())):
            if not open_run:  # "3 million"
                current, open_run = int(result.pop()), True
            if token == "hundred":  # noqa: S105, not a password
                current = max(current, 1) * 100
            else:
                total, current = total + max(current, 1) * _SCALES[token], 0
        elif token == "and" and open_run:  # noqa: S105
            continue
        else:
            close()
            result.append(token)
    close()
    return result


def _is_possible(answer: str, context: str) -> bool:
    """Whether the context has the beginning of each long word: bringing it to one form is slow."""
    return all(
        word[:3] in context
        for word in words(answer)
        if len(word) > LONG and word.isalpha() and word not in _SPELT
    )


@functools.lru_cache(maxsize=2_000)
def _joined(context: str) -> str:
    return f" {' '.join(canonical(context))} "


def holds_variant(context: str, answers: Iterable[str]) -> bool:
    """Whether any answer stands in the context in some form."""
    lowered = context.casefold()
    possible = [answer for answer in answers if _is_possible(answer, lowered)]
    if not possible:
        return False
    haystack = _joined(context)
    found = (canonical(answer) for answer in possible)
    return any(tokens and f" {' '.join(tokens)} " in haystack for tokens in found)
