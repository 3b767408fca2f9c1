"""`curate annotate login|push|pull|webhook`: the commands that speak to a server."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate import console
from curate.annotate.label_studio import keyring
from curate.console import json_option, seed_option

if TYPE_CHECKING:
    from curate.annotate.label_studio.pull import Pulled
    from curate.annotate.label_studio.push import Pushed

_PATH = click.Path(path_type=Path)
_FIRST = ("disagreement", "margin", "random")

address_option = click.option(
    "--url",
    "address",
    envvar="LABEL_STUDIO_URL",
    default=keyring.ADDRESS,
    show_default=True,
    show_envvar=True,
    help="Label Studio's address.",
)
_project_option = click.option("--project", required=True, metavar="NAME", help="Its title.")
_out_option = click.option(
    "--out", type=_PATH, required=True, help="Parquet file for the annotations of all pulls."
)


@click.command()
@address_option
def login(address: str) -> None:
    """Keep a token for Label Studio in a file that only you can read.

    It is asked for, or read from standard input; a legacy token or a personal access token will
    do. LABEL_STUDIO_API_KEY in the environment goes before it; LABEL_STUDIO_KEYRING names another
    file.
    """
    import sys

    from curate.annotate.label_studio import server

    if sys.stdin.isatty():
        secret = click.prompt("token (Account & Settings, Access Token)", hide_input=True)
    else:
        secret = sys.stdin.readline()
    who = server.connect(address, secret.strip()).who()
    kept = keyring.keep(address, secret.strip())
    click.echo(f"{address}: hello, {who}; the token is in {kept}")


@click.command()
@click.argument("path", metavar="DIR|FILE", type=_PATH)
@_project_option
@address_option
@click.option(
    "--first",
    type=click.Choice(_FIRST),
    default="disagreement",
    show_default=True,
    help="Send first: where verifiers disagree, what is nearest to a half, or a drawn sample.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many rows.")
@click.option(
    "--predictions",
    "runs",
    type=_PATH,
    multiple=True,
    metavar="FILE|DIR",
    help="Attach a run's answers too: predictions.parquet of `abstain evaluate`.",
)
@click.option("--prelabel", is_flag=True, help="Let annotators begin with the predictions.")
@click.option(
    "--overlap",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="People who judge a row of the overlap.",
)
@click.option(
    "--overlap-share",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the rows in the overlap; drawn, and sent before the others.",
)
@click.option("--gold", type=_PATH, metavar="FILE", help="Rows with sure labels, mixed in unseen.")
@click.option("--reset-page", is_flag=True, help="Put the labelling page back as we made it.")
@seed_option
@json_option
def push(
    path: Path,
    project: str,
    address: str,
    first: Any,
    limit: int | None,
    runs: tuple[Path, ...],
    prelabel: bool,
    overlap: int,
    overlap_share: float,
    gold: Path | None,
    reset_page: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Make the rows of DIR or FILE tasks of a Label Studio project, in the order of --first.

    The project is made where there is none. What it holds already stays, and a row that has
    changed since updates its task, so that the same command twice changes nothing, and one that
    was killed is finished by the next. Of a data-set folder the rows that wait for a label
    (annotate.parquet) are among those sent.

    Verifiers' votes and runs' answers go along as predictions. With --prelabel annotators begin
    with those of the first run, or else of the votes; without, the labelling page shows none, since
    whoever sees a guess tends to agree with it (the list of tasks has them for who looks there).

    \b
      curate annotate push out/data --project help --limit 200
      curate annotate push out/data --project help-audit --first random --limit 300 --overlap 3
    """
    from curate.annotate.label_studio import predictions, send, server
    from curate.annotate.label_studio.push import Page
    from curate.annotate.label_studio.push import push as push_rows

    tasks = send.tasks(path, first, limit, runs, gold, overlap, overlap_share, seed)
    shown = send.name_of(runs[0]) if runs else predictions.VOTES
    page = Page(overlap, overlap_share, shown if prelabel else "")
    done = push_rows(server.connect(address), project, tasks, page, reset_page)
    console.show(done.to_json(), told_of_push(done, project), as_json)


def told_of_push(done: "Pushed", name: str) -> str:
    """A push in words."""
    lines = [
        f"project '{name}': {done.added:,} tasks added, {done.changed:,} changed, "
        f"{done.unchanged:,} as they were"
    ]
    for row, tasks in list(done.duplicates.items())[:5]:
        numbers = ", ".join(map(str, tasks))
        lines.append(f"warning: row {row} has several tasks ({numbers}); delete all but one")
    if len(done.duplicates) > 5:
        lines.append(f"warning: so have {len(done.duplicates) - 5:,} more rows")
    if done.foreign:
        lines.append(f"{done.foreign:,} tasks are not ours, and stay as they are")
    lines += [f"warning: the labelling page was changed: {one}" for one in done.page_changes]
    return "\n".join((*lines, f"annotate at {done.address}"))


@click.command()
@_project_option
@_out_option
@address_option
@json_option
def pull(project: str, out: Path, address: str, as_json: bool) -> None:
    """Fetch what annotators said since the last pull, and write all annotations to OUT.

    OUT has a line for each annotation: its row, the annotator, time and seconds, what was said, and
    whether it counts or why not. OUT.journal.jsonl keeps all that ever came, as it came: what is
    deleted or changed on the server is not lost here, nor is anything when the project goes.
    """
    from curate.annotate.label_studio import pull as module
    from curate.annotate.label_studio import server

    done = module.pull(server.connect(address), project, out)
    console.show(done.to_json(), _told_of_pull(done, out), as_json)


def _told_of_pull(done: "Pulled", out: Path) -> str:
    lines = [
        f"{done.new:,} new annotations, {done.changed:,} changed, {done.deleted:,} deleted on the "
        f"server ({done.tasks:,} tasks fetched)",
        f"now {console.listed(done.annotations) or 'none'}: {done.rows:,} rows by "
        f"{done.annotators:,} annotators",
    ]
    lines += [f"invalid, {count:,} times: {why}" for why, count in done.invalid.items()]
    if done.foreign:
        lines.append(f"{done.foreign:,} annotations are of tasks that are not ours: journal only")
    if done.torn:
        lines.append(f"{done.torn:,} lines of the journal were cut off by a crash")
    lines += [f"warning: the labelling page was changed: {one}" for one in done.page_changes]
    return "\n".join((*lines, f"written to {out}"))


@click.command()
@_project_option
@_out_option
@address_option
@click.option("--port", default=8090, show_default=True, help="Where to listen.")
@click.option("--host", default="127.0.0.1", show_default=True, help="On which address.")
@click.option(
    "--target", metavar="URL", help="Where Label Studio reaches us, if not at that address."
)
def webhook(
    project: str, out: Path, address: str, port: int, host: str, target: str | None
) -> None:
    """Receive annotations as they are made, until interrupted.

    Tells Label Studio where to send them, keeps each in OUT.journal.jsonl before it says thanks,
    and writes OUT when there is a pause. Label Studio tries once and waits a second: what is
    missed then, the next pull brings.
    """
    from curate.annotate.label_studio import webhook as module

    module.serve(project, out, address, host, port, target)
