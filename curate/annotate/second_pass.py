"""From annotations to rows, and disputed rows to whoever decides."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from curate import record
from curate.annotate import annotations, measure
from curate.annotate.adjudicate import BAD, Adjudicated, adjudicate, disputed, opinion
from curate.annotate.annotations import Annotation
from curate.annotate.label_studio.send import rows_to_send
from curate.annotate.said import Said
from curate.errors import UserError
from curate.insufficient.readers import agree
from curate.record import Row

if TYPE_CHECKING:
    from curate.annotate.label_studio.push import Pushed

STEP = "annotate"


def settle(
    path: Path, out: Path, by: str, second: Path | None, whole: Path | None, gold: Mapping[str, Row]
) -> dict[str, Any]:
    """Write rows, dropped rows and dissent beside each other; returns what there was.

    Rows of ``gold`` are known, and left out.
    """
    found = annotations.counting(annotations.read(path))
    later = annotations.counting(annotations.read(second)) if second is not None else []
    rows = annotations.rows_of([*found, *later])
    said, decided = annotations.said_of(found), annotations.said_of(later)
    weighed = measure.estimated(said, gold).suffices if by == "dawid-skene" else None
    rows = _to_write(rows, whole, gold)
    result = adjudicate(rows, said, STEP, weighed, decided)
    if weighed is not None:
        for row in result.rows:
            if row.id in weighed:
                row.votes["dawid_skene"] = weighed[row.id]
    dissent = _dissent(result, [*found, *later])
    record.write_table(record.to_table(result.rows), out)
    record.write_table(record.dropped_to_table(result.dropped), out.with_suffix(".dropped.parquet"))
    annotations.write(dissent, out.with_suffix(".dissent.parquet"))
    return {
        "rows": len(result.rows),
        "labels": dict(result.counts),
        "dropped": dict(Counter(one.drop_reason for one in result.dropped)),
        "dissent": len(dissent),
    }


def _to_write(
    judged: Mapping[str, Row], whole: Path | None, gold: Mapping[str, Row]
) -> dict[str, Row]:
    """The judged rows, or all of a file with those judged as they were when people saw them."""
    rows = {row.id: row for row in rows_to_send(whole)} if whole is not None else dict(judged)
    for number, row in judged.items():
        if number in gold:  # mixed in, and never part of what is written
            continue
        now = rows.get(number)
        if now is None:
            raise UserError(f"{whole}: row {number}, which was annotated, is not in it")
        if (now.question, now.context) != (row.question, row.context):
            raise UserError(
                f"{whole}: row {number} has other texts than were annotated; push it again, or "
                "take the file that was pushed"
            )
    return {number: row for number, row in rows.items() if number not in gold}


def _dissent(result: Adjudicated, found: Sequence[Annotation]) -> list[Annotation]:
    """Who says otherwise than what came out: another label, or none of the answers."""
    rows = {row.id: row for row in result.rows if row.sufficient is not None}
    dropped = {one.row.id for one in result.dropped}

    def dissents(one: Annotation) -> bool:
        said, row = opinion(one.said), rows.get(one.row.id)
        if row is None:
            return one.row.id in dropped and said != BAD
        if said != ("yes" if row.sufficient else "no"):
            return True
        given = [text for text, _ in one.said.answers]
        return bool(given) and not any(agree(text, row.answers) for text in given)

    return [one for one in found if dissents(one)]


def push(path: Path, name: str, address: str, gold: Mapping[str, Row]) -> "Pushed":
    """Send the disputed rows to a project of their own, with what was said of them as a note."""
    from curate.annotate.label_studio import server
    from curate.annotate.label_studio.push import Page
    from curate.annotate.label_studio.push import push as push_rows
    from curate.annotate.label_studio.tasks import task_of

    found = annotations.counting(annotations.read(path))
    rows, said = annotations.rows_of(found), annotations.said_of(found)
    differ = [row for row in rows.values() if row.id not in gold and disputed(said[row.id])]
    tasks = [
        task_of(row, [], "\n".join(sorted(map(_told, said[row.id].values())))) for row in differ
    ]
    return push_rows(server.connect(address), name, tasks, Page())


def _told(said: Said) -> str:
    """One person's judgement in a line, without the person."""
    if said.bad or said.sufficient is None:
        told = "the question makes no sense"
    elif said.sufficient:
        told = "yes: " + ", ".join(f"“{text}”" for text, _ in said.answers)
    else:
        told = f"no: {said.reason or 'no reason given'}"
    return f"{told} ({said.comment})" if said.comment else told
