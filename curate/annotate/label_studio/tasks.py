"""A row as a task, and back.

``data`` is what the page shows, ``meta`` the rest of the row, so that whoever pulls needs nothing
but the project. `SHOWN` is a hash of what annotators see: annotations of other texts are stale.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from curate.annotate.label_studio.server import Marks, Seen
from curate.contract import told
from curate.record import Row, digest

ROW, SHOWN, PUSHED = "row", "shown", "pushed"
_SHOWN_FIELDS = ("question", "context")
_FIELDS = {field.name for field in dataclasses.fields(Row)}


def task_of(row: Row, predictions: Sequence[dict[str, Any]], note: str = "") -> dict[str, Any]:
    """What is imported for a row; ``note`` is shown above the passage."""
    seen = {"question": row.question, "context": row.context, "history": told(row.history)}
    rest = dataclasses.asdict(row)
    for name in _SHOWN_FIELDS:
        del rest[name]
    shown = digest(*seen.values())
    pushed = digest(shown, row.content_hash, repr(rest), repr(predictions), note)
    return {
        "data": {ROW: row.id, SHOWN: shown, PUSHED: pushed, **seen, "note": note},
        "meta": {"row": rest, "before": {}},
        "predictions": list(predictions),
    }


def replacing(seen: Seen, new: dict[str, Any], old_meta: Mapping[str, Any]) -> dict[str, Any]:
    """The task anew where its row has changed; if its texts have, which annotations are stale."""
    before: dict[str, str] = dict(old_meta.get("before") or {})
    if seen.data.get(SHOWN) != new["data"][SHOWN]:
        before |= {str(number): changed for number, changed in seen.annotations.items()}
    return new | {"meta": new["meta"] | {"before": before}}


def row_of(task: Mapping[str, Any]) -> Row | None:
    """The row that a task was made of; None for one that we did not make."""
    data, rest = task.get("data") or {}, (task.get("meta") or {}).get("row")
    if not isinstance(rest, dict) or not data.get(ROW):
        return None
    fields = {name: value for name, value in rest.items() if name in _FIELDS}
    fields["evidence"] = [(start, end) for start, end in fields.get("evidence", [])]
    return Row(question=data["question"], context=data["context"], **fields)


def stale(task: Mapping[str, Any]) -> Marks:
    """The annotations that were made before the row's texts changed, as they were then."""
    before = (task.get("meta") or {}).get("before") or {}
    return {int(number): changed for number, changed in before.items()}
