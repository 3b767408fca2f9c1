"""Data sets as others read them: SQuAD 2.0's JSON, and conversations or prompts for trainers."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from curate.contract import Contract
from curate.errors import UserError
from curate.files import replacing
from curate.record import NOT_A_SPAN, Row


def export(
    rows: Sequence[Row], form: str, out: Path, contract: Contract, spans_only: bool = False
) -> int:
    """Write labelled rows as squad, messages or prompt-completion; returns how many.

    A row whose answers are no spans of its context, or that has a history, cannot be told in
    SQuAD's format: it is an error, since a file that silently lacks rows is not the data set,
    unless ``spans_only`` says that such rows are left out.
    """
    labelled = [row for row in rows if row.sufficient is not None]
    if spans_only and form == "squad":
        labelled = [r for r in labelled if not r.history and NOT_A_SPAN not in r.answer_starts]
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        if form == "squad":
            json.dump(squad(labelled), file, ensure_ascii=False)
        else:
            tell = _TELLERS[form]
            for row in labelled:
                file.write(json.dumps(tell(row, contract), ensure_ascii=False) + "\n")
    return len(labelled)


def squad(rows: Sequence[Row]) -> dict[str, Any]:
    """The official structure: articles of paragraphs of questions; ours is the field ``reason``."""
    articles: dict[str, dict[str, list[Row]]] = {}
    for row in rows:
        articles.setdefault(row.document_id, {}).setdefault(row.context, []).append(row)
    return {
        "version": "v2.0",
        "data": [
            {
                "title": title,
                "paragraphs": [
                    {"context": context, "qas": list(map(_question, members))}
                    for context, members in contexts.items()
                ],
            }
            for title, contexts in articles.items()
        ],
    }


def _question(row: Row) -> dict[str, Any]:
    if row.history:
        raise UserError(
            f"row {row.id}: SQuAD's format has no place for a conversation's history; "
            "export messages, or leave such rows out (--spans-only)"
        )
    if NOT_A_SPAN in row.answer_starts:
        raise UserError(
            f"row {row.id}: its answer '{row.answers[0]}' is no span of its context, and SQuAD's "
            "format holds spans only; export messages, or leave such rows out (--spans-only)"
        )
    answers = [
        {"text": answer, "answer_start": start}
        for answer, start in zip(row.answers, row.answer_starts, strict=True)
    ]
    found = {"id": row.id, "question": row.question, "is_impossible": not row.sufficient}
    return {**found, "answers": answers, **({"reason": row.reason} if row.reason else {})}


def messages(row: Row, contract: Contract) -> dict[str, Any]:
    """A conversation that ends with the answer, or with the abstention phrase."""
    turns = contract.messages(row.context, row.question, row.history)
    answer = contract.target(row.answers, bool(row.sufficient))
    return {"id": row.id, "messages": [*turns, {"role": "assistant", "content": answer}]}


def prompt_completion(row: Row, contract: Contract) -> dict[str, Any]:
    """The same in two parts, so that a trainer takes its loss on the answer alone."""
    *prompt, answer = messages(row, contract)["messages"]
    return {"id": row.id, "prompt": prompt, "completion": [answer]}


_TELLERS: dict[str, Callable[[Row, Contract], dict[str, Any]]] = {
    "messages": messages,
    "prompt-completion": prompt_completion,
}
