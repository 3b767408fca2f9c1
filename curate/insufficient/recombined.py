"""`recombined`: passages of which none entails the answer (Trust-Align, Song et al. 2025).

Where `noise_passages` asks whether the answer's words stand in a passage, here a language model
says whether the passage supports the answer: one that tells it in other words is left out.
"""

from curate.insufficient.made import Made, World
from curate.insufficient.noise_passages import near_misses
from curate.record import BETWEEN_PASSAGES, Row

METHOD, REASON = "recombined", "irrelevant_context"
PROMPT = (
    "Does the passage support this answer to the question, in whatever words? Reply yes or no.\n\n"
    "Question: {question}\nAnswer: {answer}\n\nPassage:\n{context}"
)


def make(row: Row, world: World) -> Made | None:
    """The k nearest passages that do not entail the answer, in a random order; intensity 1."""
    found: list[str] = []
    for passage in near_misses(row, world, 3 * world.count):
        prompt = PROMPT.format(
            question=row.question, answer="; ".join(row.answers), context=passage
        )
        if world.write(prompt, max_tokens=4).casefold().startswith("no"):
            found.append(passage)
        if len(found) == world.count:
            world.random(METHOD, row).shuffle(found)
            return Made(REASON, 1.0, BETWEEN_PASSAGES.join(found), borrowed=found)
    return None
