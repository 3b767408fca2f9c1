"""SQuAD 1.1 and 2.0 (Rajpurkar et al. 2016, 2018): the official JSON, or a hub data set."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.errors import UserError
from curate.record import REASONS, Row, digest
from curate.sources import hub, stream
from curate.sources.fields import get
from curate.text import fitting

_get = functools.partial(get, form="SQuAD")


def read(path: str, name: str, licence: str = "") -> Iterator[Row]:
    """Read rows from the official file ``path``, or from ``hub:NAME`` in the hub's flat form.

    A question with ``is_impossible`` becomes an insufficient row; its reason is `unlabelled`
    unless the file gives one of our reason codes under ``reason`` (an extension of ours).
    """
    found = _from_hub(path, name) if path.startswith("hub:") else _from_file(Path(path), name)
    for row in found:
        row.licence = licence
        yield row.stamped()


def _from_file(path: Path, name: str) -> Iterator[Row]:
    for where, article in stream.items(path, "data", "SQuAD"):
        title = _get(article, "title", str, where)
        for p, paragraph in enumerate(_get(article, "paragraphs", list, where)):
            place = f"{where}.paragraphs[{p}]"
            context = _get(paragraph, "context", str, place)
            for q, question in enumerate(_get(paragraph, "qas", list, place)):
                yield _row(question, context, title, name, f"{place}.qas[{q}]")


def _row(value: Any, context: str, title: str, name: str, where: str) -> Row:
    impossible = _get(value, "is_impossible", bool, where, default=False)
    answers = [] if impossible else _get(value, "answers", list, where)
    pairs = [
        (_get(answer, "text", str, spot), _get(answer, "answer_start", int, spot))
        for spot, answer in ((f"{where}.answers[{i}]", a) for i, a in enumerate(answers))
    ]
    reason = _get(value, "reason", str, where, default="unlabelled") if impossible else ""
    if reason and reason not in REASONS:
        raise UserError(f"{where}.reason: '{reason}' is none of {', '.join(REASONS)}")
    identifier = _get(value, "id", (str, int), where)
    return Row(
        question=_get(value, "question", str, where),
        context=context,
        answers=[text for text, _ in pairs],
        answer_starts=[fitting(start, context) for _, start in pairs],
        sufficient=not impossible,
        reason=reason,
        document_id=f"{name}/{title}",
        title=title,
        source=name,
        source_id=str(identifier),
    )


def _from_hub(path: str, name: str) -> Iterator[Row]:
    """The hub's flat form: one question a row, ``answers`` = {text: [...], answer_start: [...]}."""
    for where, value in hub.rows(path):
        context = _get(value, "context", str, where)
        answers = _get(value, "answers", dict, where)
        texts, starts = answers.get("text"), answers.get("answer_start")
        if texts is None or starts is None or len(texts) != len(starts):
            raise UserError(
                f"{where}.answers: lists 'text' and 'answer_start' of equal length needed"
            )
        yield _row(
            {
                "id": _get(value, "id", str, where),
                "question": _get(value, "question", str, where),
                "is_impossible": not texts,  # the hub's form of SQuAD 2.0 says it so
                "answers": [
                    {"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)
                ],
            },
            context,
            # Without titles, a context is a document: else the whole set would be a single one.
            _get(value, "title", str, where, default="") or digest(context),
            name,
            where,
        )
