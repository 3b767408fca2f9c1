"""Questions that a language model writes: a false premise, or nothing to go by.

The twins of the templates in `false_premise` and `underspecified`: less uniform, less certain.
"""

from curate.insufficient.made import Made, World
from curate.record import Row
from curate.text import words

FALSE_PREMISE, UNDERSPECIFIED = "false_premise_written", "underspecified_written"
LONGEST = 40  # words; more is no question but an explanation
_PRESUME = (
    "Write one question about the passage that takes for granted something that the passage does "
    "not say, so that it cannot be answered from the passage. It should sound natural and be on "
    "the same matter as this one: {question}\nReply with the question alone.\n\n"
    "Passage:\n{context}"
)
_BLUR = (
    "Rewrite the question so that it no longer says what it is about: put words like it, they or "
    "that one for every name and thing, so that nobody could answer it without knowing what was "
    "said before. Reply with the question alone.\n\nQuestion: {question}"
)


def presume(row: Row, world: World) -> Made | None:
    """A question with a false premise; intensity 0.5."""
    question = _question(world.write(_PRESUME.format(question=row.question, context=row.context)))
    return Made("false_premise", 0.5, question=question) if _is_new(question, row) else None


def blur(row: Row, world: World) -> Made | None:
    """The question without what it is about; intensity 1, and none within a conversation."""
    if row.history:
        return None
    question = _question(world.write(_BLUR.format(question=row.question)))
    return Made("underspecified", 1.0, question=question) if _is_new(question, row) else None


def _question(text: str) -> str:
    """The first line that asks something, without quotes."""
    lines = (line.strip().strip("\"'“”‘’ ") for line in text.splitlines())
    return next((line for line in lines if line.endswith("?")), "")


def _is_new(question: str, row: Row) -> bool:
    return 0 < len(words(question)) <= LONGEST and words(question) != words(row.question)
