"""The over-refusal contrast set: questions that look unanswerable, and are not.

A model that abstains well on the test split may do so by refusing whatever looks odd (Röttger et
al. 2024 show it for safety). Every row here has its answer in the context, is made of or chosen
among test rows, and is never trained on.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from curate.insufficient import distracted
from curate.insufficient.derive import child, world_of
from curate.insufficient.made import Made, World
from curate.insufficient.neighbourhoods import neighbourhoods
from curate.recipe import InsufficientSettings
from curate.record import Passage, Row
from curate.text import content_words, words

# What a doubtful user says; none of it changes what is asked.
DOUBTS = (
    "It may not be in here, but {question}",
    "I doubt that this is mentioned: {question}",
    "Nobody could tell me so far. {question}",
    "I may be asking in the wrong place: {question}",
)
ALIKE = 0.5  # of the words of two questions, to be near misses of each other
FAR = 0.3  # of the question's words in the context, at most, to be in other words


def contrast(
    rows: Sequence[Row], passages: Iterable[Passage], settings: InsufficientSettings, seed: int
) -> list[Row]:
    """A row of each kind for each natural sufficient test row that allows it, by their ids."""
    siblings: dict[str, list[set[str]]] = defaultdict(list)
    for row in rows:
        if row.sufficient is False:
            siblings[row.context_id].append(content_words(row.question))
    natural = [row for row in rows if not row.parent_id]
    made = [
        (parent.id, child)
        for part in neighbourhoods(natural, (p for p in passages if p.fold == "test"))
        for world in [world_of(part, settings, seed)]
        for parent in part.rows
        if parent.sufficient
        for child in _of(parent, siblings, world)
    ]
    return [child for _, child in sorted(made, key=lambda pair: pair[0])]


def _of(row: Row, siblings: dict[str, list[set[str]]], world: World) -> Iterator[Row]:
    answers = list(zip(row.answers, row.answer_starts, strict=True))
    doubt = world.random("contrast_doubted", row).choice(DOUBTS).format(question=row.question)
    yield child(row, "contrast_doubted", Made("", 0.5, question=doubt, answers=answers), world)
    among = distracted.make(row, replace(world, count=world.count + 2))
    if among is not None:
        yield child(row, "contrast_distracted", among, world)
    asked = content_words(row.question)
    same = Made("", 1.0, answers=answers)
    if any(_similarity(asked, other) >= ALIKE for other in siblings[row.context_id]):
        yield child(row, "contrast_near_miss", same, world)
    if asked and len(asked & set(words(row.context))) <= FAR * len(asked):
        yield child(row, "contrast_other_words", same, world)


def _similarity(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))
