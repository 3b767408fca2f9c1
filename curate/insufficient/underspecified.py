"""`underspecified`: a question that does not say what it is about, and no turn before it does."""

from curate.insufficient.made import Made, World
from curate.record import Row

METHOD, REASON = "underspecified", "underspecified"
# By the question's first word, what is left when its subject is taken away.
TEMPLATES = {
    "who": ("Who was that, then?", "Who did that?", "And who was the other one?"),
    "when": ("When did that happen?", "And when was the other one?", "When was that, then?"),
    "where": ("Where was that?", "And where is the other one?", "Where did they go then?"),
    "why": ("Why did they do that?", "And why not the other one?", "Why is that?"),
    "how": ("How did they do that?", "And how about the other one?", "How many of those?"),
    "what": ("What about the other one?", "What was that for?", "What is it called there?"),
    "which": ("Which one is meant?", "And which of the two?", "Which of those, then?"),
}


def make(row: Row, world: World) -> Made | None:
    """A question of the same kind without its subject; intensity 1, and none within a conversation.

    There an earlier turn may say what is meant.
    """
    if row.history:
        return None
    first = row.question.split()[0].casefold().strip("¿?,'\"") if row.question.split() else ""
    templates = TEMPLATES.get(first, TEMPLATES["what"])
    return Made(REASON, 1.0, question=world.random(METHOD, row).choice(templates))
