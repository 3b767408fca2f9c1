"""The audit's sample judged in Label Studio: there with labels unseen, and back as judgements."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curate.annotate import annotations
from curate.annotate.adjudicate import BAD, majority
from curate.annotate.said import Said
from curate.audit import labels
from curate.audit.labels import Judgement, Opinion
from curate.record import Row, digest

if TYPE_CHECKING:
    from curate.annotate.label_studio.push import Pushed

ANNOTATIONS = "audit.parquet"


@dataclass(frozen=True)
class RoundTrip:
    """What went and what came."""

    pushed: "Pushed"
    judged: int  # verdicts that are new or other than before


def round_trip(
    folder: Path, drawn: list[Row], project: str, address: str, overlap: int
) -> RoundTrip:
    """Send the drawn rows that the project lacks, and take in what people have said of any.

    Nothing is sent along that tells a label. The annotations lie in DIR/audit.parquet.
    """
    from curate.annotate.label_studio import pull, server
    from curate.annotate.label_studio.push import Page, push
    from curate.annotate.label_studio.tasks import task_of

    to = server.connect(address)
    # Rows of one method mostly have one label: in the sample's order, each would tell the next.
    mixed = sorted(drawn, key=lambda row: digest("order", row.id))
    pushed = push(to, project, [task_of(row, []) for row in mixed], Page(overlap))
    out = folder / ANNOTATIONS
    pull.pull(to, project, out)
    return RoundTrip(pushed, take_in(annotations.read(out), folder / labels.FILE))


def take_in(found: Iterable[annotations.Annotation], path: Path) -> int:
    """Append the verdicts that are new, or other than before; returns how many."""
    found = list(found)
    said, rows = annotations.said_of(found), annotations.rows_of(found)
    before = {(one.id, one.content_hash): one.verdict for one in labels.read(path)}
    fresh = 0
    for number, all_ in said.items():
        row = rows[number]
        verdict = labels.verdict(row, opinion(all_.values()))
        if before.get((row.id, row.content_hash)) != verdict:
            note = "; ".join(one.comment for one in all_.values() if one.comment)
            labels.append(
                path, Judgement(row.id, row.content_hash, labels.kind(row), verdict, note)
            )
            fresh += 1
    return fresh


def opinion(said: Iterable[Said]) -> Opinion:
    """What most say; nobody can tell of a bad question, nor where people are divided."""
    most = majority(said)
    return "unsure" if most is None or most == BAD else most
