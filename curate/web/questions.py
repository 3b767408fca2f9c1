"""What reads like a question, and how it is written without the number or label of a list."""

import re

_MARK = re.compile(r"[?\uff1f\u061f\u037e][\W_]*$")  # also full-width, Arabic and Greek
# Without a mark only the order of words that asks: "How do I pay", but not "How to pay".
_OPENING = re.compile(
    r"""(?: how\ (?:do|does|did|can|could|should|is|are|was|were)
          | what\ (?:is|are|was|were|do|does|did|can|should|happens|if)
          | why\ (?:is|are|was|were|do|does|did|can|should|don't|doesn't|isn't|aren't|can't)
          | (?:when|where|who)\ (?:is|are|was|do|does|did|can|should|will)
          | (?:can|could|should|do|does|may|will|am|is|are)\ (?:i|we|you|my|our|your|there|it)
        )\ \w""",
    re.IGNORECASE | re.VERBOSE,
)
_ASKED = re.compile(
    r"^(?:q(?:uestion)?\s*\d*\s*[:.)-]|\d+(?:\.\d+)*[.):]?(?=\s))\s*", re.IGNORECASE
)
_ANSWERED = re.compile(r"^a(?:nswer)?\s*\d*\s*[:)]\s+", re.IGNORECASE)
_OPEN_END = re.compile(r"\s*(?:\u2026|\.\.\.)\s*\?*$")
_OPEN_START = re.compile(r"^(?:\u2026|\.\.\.)\s*")
# A letter, a quotation mark, an opening ¿ or ¡: ``{m,n}?`` is of a regular expression.
_BEGINNING = re.compile(r"[\w\"'\u2018\u201c\u201e\u00ab\u00bf\u00a1]")
_LONGEST = 300  # characters; what is longer tells, and asks at the end of it


def bare_question(text: str) -> str:
    """A question without the ``Q:`` or the number that a list puts before it."""
    text = " ".join(text.split())
    return _ASKED.sub("", text) or text


def bare_answer(text: str) -> str:
    """An answer without the ``A:`` that a list puts before it."""
    return _ANSWERED.sub("", text.strip())


def completed(above: str, text: str) -> str:
    """A heading that goes on with the one above it: "How do I…?" and "… pay?" are one question."""
    if _OPEN_START.match(text) and _OPEN_END.search(above):
        return f"{_OPEN_END.sub('', above)} {_OPEN_START.sub('', text)}"
    return text


def is_question(text: str) -> bool:
    """Whether a heading, a summary or a term asks something; typographic apostrophes count."""
    text = bare_question(text).replace("\u2019", "'")
    if not 0 < len(text) <= _LONGEST or not any(map(str.isalpha, text)):
        return False
    if not _BEGINNING.match(text) or _OPEN_END.search(text):
        return False  # of half a question `completed` has the other half
    return bool(_MARK.search(text) or _OPENING.match(text))
