"""`abstain queue`: the people's side of the router, on the command line."""

import datetime
import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate import console
from curate.annotate.label_studio.command import address_option
from curate.console import json_option, seed_option

if TYPE_CHECKING:
    from abstain.queue import Item, Queue

_PATH = click.Path(path_type=Path)
at_option = click.option(
    "--at",
    default="service",
    show_default=True,
    metavar="DIR|URL",
    help="The service's folder, or a team's data base.",
)
_person_option = click.option(
    "--person", default=getpass.getuser, show_default="who is logged in", help="Who says it."
)


@click.group()
def queue() -> None:
    """What waits for people: questions that the policy escalated, and drawn audits.

    \b
      abstain queue list                      # what waits
      abstain queue answer                    # one question after the other
      abstain queue push --project help       # or in Label Studio, and back with pull
      abstain queue export --out rows.parquet # as data: what people said, with weights
    """


def opened(at: str) -> "Queue":
    """The queue in a service's folder, or at a data base's address; it must be there already."""
    from abstain.queue import Queue
    from abstain.serve.service import QUEUE
    from curate.errors import UserError
    from curate.files import exists

    if "://" in at:
        return Queue(at)
    file = Path(at) / QUEUE if Path(at).is_dir() else Path(at)
    if not exists(file):
        raise UserError(f"{at}: has no queue; `abstain serve --state {at}` makes one")
    return Queue(file)


@queue.command(name="list")
@at_option
@click.option(
    "--status",
    type=click.Choice(["waiting", "claimed", "answered", "rejected", "expired"]),
    default="waiting",
    show_default=True,
)
@click.option("-n", "limit", type=click.IntRange(1), default=20, show_default=True)
@json_option
def list_(at: str, status: Any, limit: int, as_json: bool) -> None:
    """List questions, the oldest first."""
    store = opened(at)
    items, counts = store.items(status, limit), store.counts()
    value = {"counts": counts, "items": [item.to_json() for item in items]}
    lines = [(item.id, _when(item.created), _why(item), item.question[:70]) for item in items]
    text = console.table(("id", "since", "why", "question"), lines) if lines else "nothing here"
    console.show(value, f"{console.listed(counts) or 'empty'}\n\n{text}", as_json)


def _when(moment: float) -> str:
    return datetime.datetime.fromtimestamp(moment).astimezone().strftime("%Y-%m-%d %H:%M")


def _why(item: "Item") -> str:
    whys = ["escalated"] * item.escalated + ["audit"] * item.audited
    return ", ".join(whys)


@queue.command()
@click.argument("number", metavar="[ID]", required=False)
@at_option
@_person_option
@click.option("--text", "texts", multiple=True, help="The answer, as the context has it; several.")
@click.option("--no", "reason", metavar="REASON", help="The context does not tell, and why not.")
@click.option("--comment", default="")
@json_option
def answer(
    number: str | None,
    at: str,
    person: str,
    texts: tuple[str, ...],
    reason: str | None,
    comment: str,
    as_json: bool,
) -> None:
    """Answer question ID, or, without one, what waits, one after the other.

    \b
      abstain queue answer bot:17 --text "five days"
      abstain queue answer bot:17 --no evidence_missing
    """
    from abstain.queue import Reply
    from curate.record import REASONS

    store = opened(at)
    if number is None:
        if texts or reason:
            raise click.UsageError("--text and --no are for one question: give its ID")
        _one_after_the_other(store, person)
        return
    if bool(texts) == (reason is not None):
        raise click.UsageError("either --text, the answer, or --no, why there is none")
    if reason is not None and reason not in REASONS:
        raise click.UsageError(f"--no: there is no reason '{reason}'; {', '.join(REASONS)}")
    done = store.answer(number, person, Reply(bool(texts), texts, reason or "", comment))
    console.show(done.to_json(), f"{number} is answered", as_json)


def _one_after_the_other(store: "Queue", person: str) -> None:
    from abstain.queue import Reply
    from curate.record import REASONS

    count = 0
    while (item := store.claim(person)) is not None:
        try:
            click.echo(f"\n{item.context or '(no context)'}\n\n{item.question}\n")
            said = click.prompt("the answer (- the context does not tell, ? later)", default="?")
            if said == "?":
                break
            reply = Reply(True, (said,))
            if said == "-":
                reasons = click.Choice([reason for reason in REASONS if reason != "unlabelled"])
                reply = Reply(False, (), click.prompt("why not", type=reasons))
            store.answer(item.id, person, reply)
            count += 1
        finally:
            store.release(item.id, person)
    click.echo(f"{count} answered; {console.listed(store.counts())}")


@queue.command()
@click.argument("number", metavar="ID")
@at_option
@_person_option
@click.option("--why", required=True, help="Kept with it.")
def reject(number: str, at: str, person: str, why: str) -> None:
    """Close question ID without an answer."""
    opened(at).reject(number, person, why)
    click.echo(f"{number} is rejected")


@queue.command()
@at_option
@click.option("--days", type=click.FloatRange(0), required=True, help="That a question may wait.")
def expire(at: str, days: float) -> None:
    """Close what has waited too long; it stays in the data base."""
    click.echo(f"{opened(at).expire(days * 86_400)} expired")


@queue.command()
@at_option
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option(
    "--calibration-share",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Probability that a document serves calibration and not training.",
)
@click.option(
    "--with", "data", type=_PATH, metavar="DIR", help="The rows of this data set too, for a split."
)
@seed_option
@json_option
def export(
    at: str, out: Path, calibration_share: float, data: Path | None, seed: int, as_json: bool
) -> None:
    """Write what people answered as rows that `curate` reads.

    Each has a fold, by document, and a weight that undoes how it was drawn (it is kept with the
    row; `train` takes all rows alike so far). Calibration gets uniformly audited questions alone: a
    queue of hard cases would make it too severe.

    \b
      abstain queue export --with out/data --out more.parquet
      curate split more.parquet --out out/data-2
    """
    from abstain import queue_export
    from curate import record

    before = queue_export.rows_to_join(data) if data is not None else []
    found = queue_export.export(opened(at).items(), calibration_share, seed, before)
    rows = [*before, *found.rows]
    record.write_table(record.to_table(rows), out)
    value = {**found.to_json(), "written": len(rows)}
    text = f"{len(found.rows)} rows of the queue: {console.listed(value['folds']) or 'none'}"  # type: ignore[arg-type]
    if found.left_out:
        text += f"\nleft out: {console.listed(found.left_out)}"
    console.show(value, f"{text}\n{len(rows)} rows written to {out}", as_json)


@queue.command()
@at_option
@click.option("--project", required=True, help="In Label Studio; made where there is none.")
@address_option
@json_option
def push(at: str, project: str, address: str, as_json: bool) -> None:
    """Make what waits tasks of a Label Studio project; see `curate annotate login`."""
    from abstain import queue_label_studio
    from curate.annotate.label_studio import server
    from curate.annotate.label_studio.command import told_of_push

    done = queue_label_studio.push(opened(at), server.connect(address), project)
    console.show(done.to_json(), told_of_push(done, project), as_json)


@queue.command()
@at_option
@click.option("--project", required=True)
@click.option(
    "--out", type=_PATH, help="Table of all annotations [default: queue-annotations.parquet, AT]."
)
@address_option
@json_option
def pull(at: str, project: str, out: Path | None, address: str, as_json: bool) -> None:
    """Answer what annotators have decided; what they are divided on stays open."""
    from abstain import queue_label_studio
    from curate.annotate.label_studio import server

    folder = Path(at) if Path(at).is_dir() else Path()
    file = out or folder / "queue-annotations.parquet"
    done = queue_label_studio.pull(opened(at), server.connect(address), project, file)
    console.show(done.to_json(), console.listed(done.to_json()), as_json)
