"""`entity_swapped`: a name in the question gives way to another of its kind.

Names of the same context come first: such a question fits the passage in everything but what it
asks (SQuAD 2.0's "entity swap"; Gautam et al. 2023).
"""

import functools
from collections.abc import Iterator

from curate.insufficient.made import Made, World
from curate.insufficient.mentions import Mention, alike, mentions
from curate.insufficient.question_edits import SUPPORTED, first_that_fits
from curate.record import Row
from curate.text import asking_word, content_words, holds_any

METHOD, REASON = "entity_swapped", "false_premise"
KINDS = ("name",)


def make(row: Row, world: World) -> Made | None:
    """Intensity 1 for a name of the same context, 0.5 for one of a passage near by."""
    return swap(row, world, METHOD, KINDS)


def swap(
    row: Row, world: World, method: str, kinds: tuple[str, ...], share: float = SUPPORTED
) -> Made | None:
    """The question with one mention of these kinds replaced; None where nothing fits."""
    if not asking_word(row.question):
        return None  # "Did Ada leave?" with another name in it has an answer: no
    here = [m for m in mentions(row.question) if m.kind in kinds]
    # Only what the context speaks of: a name that it does not know may be swapped unseen.
    here = [mention for mention in here if holds_any(row.context, [mention.text])]
    if not here:
        return None
    for intensity, source in _sources(row, world):
        others = [m for m in mentions(source) if m.kind in kinds and not _is_adjective(m)]
        edits = _edits(row, world, method, here, others)
        found = first_that_fits(row.context, edits, row.question, share)
        if found is not None:
            return Made(REASON, intensity, question=found)
    return None


@functools.lru_cache(maxsize=10_000)
def _stems(name: str) -> frozenset[str]:
    """Beginnings of its words: "Normans" is no other than "Norman", nor Islamist than Islam."""
    return frozenset(word[:5] for word in content_words(name))


def _is_adjective(mention: Mention) -> bool:
    """Whether a single word has the form of one: "Polish" where no noun follows is cut short."""
    return mention.kind == "name" and mention.text.endswith(("ish", "ese", "ian", "ican", "ic"))


def _sources(row: Row, world: World) -> Iterator[tuple[float, str]]:
    yield 1.0, row.context
    for passage in world.index.others(row):
        yield 0.5, passage
        return


def _edits(
    row: Row, world: World, method: str, here: list[Mention], others: list[Mention]
) -> Iterator[tuple[str, str]]:
    """Every edit of the question, in an order of the row's own."""
    pairs = [
        (old, new)
        for old in here
        for new in {mention.text: mention for mention in others}.values()
        if alike(old, new) and not _stems(old.text) & _stems(new.text)
    ]
    world.random(method, row).shuffle(pairs)
    answers = " ".join(row.answers)
    for old, new in pairs:
        if (
            not holds_any(row.question, [new.text])
            and not holds_any(new.text, row.answers)
            and not holds_any(answers, [new.text])
        ):
            yield new.text, row.question[: old.start] + new.text + row.question[old.end :]
