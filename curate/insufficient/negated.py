"""`negated`: the question asks for what was not so (SQuAD 2.0's "negation")."""

import re

from curate.insufficient.made import Made, World
from curate.record import Row
from curate.text import asking_word

METHOD, REASON = "negated", "false_premise"
_CONTRACTED = {
    "is": "isn't",
    "are": "aren't",
    "was": "wasn't",
    "were": "weren't",
    "do": "don't",
    "does": "doesn't",
    "did": "didn't",
    "has": "hasn't",
    "have": "haven't",
    "had": "hadn't",
    "can": "can't",
    "could": "couldn't",
    "will": "won't",
    "would": "wouldn't",
    "should": "shouldn't",
    "must": "mustn't",
}
_ALREADY = re.compile(r"\b(?:not|never|no|without|except|nor|neither)\b|n['’]t\b", re.IGNORECASE)
_AUXILIARY = re.compile(rf"\b(?:{'|'.join(_CONTRACTED)})\b", re.IGNORECASE)
# "Who wrote it?": no auxiliary, and the wh-word is the subject; "what" may qualify a noun instead.
_SUBJECT = re.compile(r"^\s*(?:who\s+(?=[a-z])|(?:what|which \w+)\s+(?=[a-z]+ed\b))", re.IGNORECASE)
# "How much was not …?" is told by how much was, "when not" by when, and "did it not" by "it did".
_COUNTS = re.compile(r"\b(?:how|when|percentage|percent|share|proportion)\b", re.IGNORECASE)


def make(row: Row, _: World) -> Made | None:
    """The first auxiliary contracted with "not", or "never" behind a subject; None without either.

    A contraction needs no parse: it keeps its place whatever the subject is.
    """
    question = row.question
    if _ALREADY.search(question) or _COUNTS.search(question) or not asking_word(question):
        return None
    if match := _AUXILIARY.search(question):
        edited = _CONTRACTED[match.group().casefold()]
        if match.group()[0].isupper():
            edited = edited.capitalize()
        return Made(
            REASON, 1.0, question=question[: match.start()] + edited + question[match.end() :]
        )
    if match := _SUBJECT.match(question):
        return Made(
            REASON, 1.0, question=f"{match.group().rstrip()} never {question[match.end() :]}"
        )
    return None
