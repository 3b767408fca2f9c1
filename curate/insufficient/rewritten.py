"""`rewritten`: a model retells the context without the answer (FaithEval, Ming et al. 2025).

What is left reads as smoothly as before, where cutting sentences leaves a seam.
"""

from curate.insufficient.made import Made, World
from curate.near_duplicates import jaccard, shingles
from curate.record import Row
from curate.text import words

METHOD, REASON = "rewritten", "evidence_missing"
PROMPT = (
    "Rewrite the passage so that nobody can find the answer to the question in it any more. "
    "Change or leave out what tells the answer, and nothing else: keep all other facts, the "
    "style, and about the length. Do not say that anything is missing. "
    "Reply with the passage alone.\n\nQuestion: {question}\nAnswer: {answer}\n\nPassage:\n{context}"
)
# A retelling outside these shares of the context's length is a summary or an invention.
SHORTEST, LONGEST = 0.4, 1.6


def make(row: Row, world: World) -> Made | None:
    """The retold context; its intensity is how far its wording is from the old one.

    None where the model gave back the same text, or one of quite another length.
    """
    prompt = PROMPT.format(
        question=row.question, answer="; ".join(row.answers), context=row.context
    )
    told = world.write(prompt, max_tokens=64 + 2 * len(words(row.context)))
    share = len(words(told)) / max(1, len(words(row.context)))
    if not SHORTEST <= share <= LONGEST or words(told) == words(row.context):
        return None
    return Made(REASON, 1 - jaccard(shingles(told), shingles(row.context)), told)
