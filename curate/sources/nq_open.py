"""NQ-open (Lee, Chang, Toutanova 2019): questions of Natural Questions and answers, no context."""

import functools
from collections.abc import Iterator
from pathlib import Path

from curate.errors import UserError
from curate.record import NOT_A_SPAN, Row, digest
from curate.sources import hub, stream
from curate.sources.fields import get

_get = functools.partial(get, form="NQ-open")


def read(path: str, name: str, licence: str = "") -> Iterator[Row]:
    """Read rows from the official JSONL, or from ``hub:NAME``.

    Their label is null, and the answers are proposals, until somebody gives them a context.
    """
    found = hub.rows(path) if path.startswith("hub:") else stream.lines(Path(path))
    for where, value in found:
        question = _get(value, "question", str, where)
        answers = _get(value, "answer", list, where)
        if not answers or not all(isinstance(answer, str) for answer in answers):
            raise UserError(f"{where}.answer: a list of texts is needed, found {answers!r:.80}")
        yield Row(
            question=question,
            context="",
            answers=answers,
            answer_starts=[NOT_A_SPAN] * len(answers),
            document_id=f"{name}/{digest(question)}",
            source=name,
            source_id=digest(question),
            licence=licence,
        ).stamped()
