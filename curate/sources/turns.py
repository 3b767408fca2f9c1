"""Earlier turns of a conversation, as rows keep them."""

from curate.contract import PHRASES

Turns = list[dict[str, str]]


def turns(question: str, answer: str) -> Turns:
    """A question and its answer as two turns; without an answer it was declined."""
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer or PHRASES[0]},
    ]
