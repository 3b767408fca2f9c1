"""What the methods that edit the question share: is the edited one answered after all?

The context stays, and with it the answer to the question as it was: whether the label is right
hangs on what the context says about the edit (Rajpurkar et al. 2018 list negation, antonyms,
entity swaps and impossible conditions among SQuAD 2.0's own ways; Gautam et al. 2023 make them).
"""

import functools
from collections.abc import Iterable

from curate.insufficient.evidence import sentences
from curate.text import content_words, words

# Of a question's other words, this share in one sentence beside the edit makes it an answer to it.
SUPPORTED = 0.5


def is_supported(context: str, edit: str, question: str, share: float = SUPPORTED) -> bool:
    """Whether a sentence of the context speaks of the edit and of a share of the question's rest.

    ``edit`` is what was put into the question; sentences are looked at with the one before, since
    a pronoun may carry the subject on.
    """
    told = content_words(edit)
    rest = content_words(question) - told
    before: frozenset[str] = frozenset()
    for here in _sentence_words(context):
        if told <= here and len(rest & (here | before)) >= share * len(rest):
            return True
        before = here
    return False


@functools.lru_cache(maxsize=2_000)
def _sentence_words(context: str) -> tuple[frozenset[str], ...]:
    return tuple(frozenset(words(context[start:end])) for start, end in sentences(context))


def first_that_fits(
    context: str, edits: Iterable[tuple[str, str]], question: str, share: float = SUPPORTED
) -> str | None:
    """Of pairs of edit and edited question, the first question without support in the context."""
    for edit, edited in edits:
        if edited.casefold() == question.casefold():
            continue
        if not is_supported(context, edit, edited, share):
            return edited
    return None
