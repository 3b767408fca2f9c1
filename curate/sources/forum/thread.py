"""A thread of any forum as rows: its question, and everything said below it as the context."""

from dataclasses import dataclass, field

from curate.record import BETWEEN_PASSAGES, NOT_A_SPAN, Row, digest


@dataclass(frozen=True)
class Reply:
    """One reply: whether it was accepted as the answer, its votes, and when it was written."""

    text: str
    accepted: bool = False
    score: float = 0.0
    published_at: str = ""


@dataclass
class Thread:
    """A question with its replies, the oldest first."""

    question: str
    body: str = ""
    replies: list[Reply] = field(default_factory=list)
    identifier: str = ""
    url: str = ""
    licence: str = ""
    published_at: str = ""


def to_row(thread: Thread, source: str, licence: str = "", retrieved_at: str = "") -> Row:
    """The thread as a row, with its document and source but not yet stamped.

    The context is the whole thread in the order of its dates (without dates, in one that says
    nothing), so that neither place nor votes tell which reply was accepted. With an accepted reply
    the row is sufficient; without one nobody has said whether the thread holds the answer: the
    label is null, for annotators, and the reply with the most votes above none is proposed.
    ``votes`` keep the reply's score, and 1 for ``accepted``.
    """
    question = " ".join(thread.question.split())
    dated = all(reply.published_at for reply in thread.replies)
    replies = sorted(
        thread.replies, key=lambda reply: reply.published_at if dated else digest(reply.text)
    )
    starts: list[int] = []
    context = thread.body.strip()
    for reply in replies:
        context += BETWEEN_PASSAGES if context else ""
        starts.append(len(context))
        context += reply.text
    accepted = next((reply for reply in replies if reply.accepted), None)
    liked = max(replies, key=lambda reply: reply.score, default=None)
    best = accepted or (liked if liked is not None and liked.score > 0 else None)
    start = next((s for s, one in zip(starts, replies, strict=True) if one is best), NOT_A_SPAN)
    votes = {"upvotes": best.score} if best is not None else {}
    return Row(
        question=question,
        context=context,
        answers=[best.text] if best is not None else [],
        answer_starts=[start] if best is not None else [],
        sufficient=True if accepted is not None else None,
        votes=votes | ({"accepted": 1.0} if accepted is not None else {}),
        document_id=f"{source}/{thread.identifier}",
        source=source,
        source_id=thread.identifier,
        url=thread.url,
        title=question,
        licence=thread.licence or licence,
        retrieved_at=retrieved_at,
        published_at=(best.published_at if best is not None else "") or thread.published_at,
    )
