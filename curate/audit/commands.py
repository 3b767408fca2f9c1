"""`curate audit`: the commands. Each imports what it needs, so that `--help` is instant."""

import sys
from pathlib import Path
from typing import Any

import click

from curate import console
from curate.annotate.label_studio.command import address_option
from curate.console import json_option

_PATH = click.Path(path_type=Path)


@click.group()
def audit() -> None:
    """What a data set is worth before anyone trains on it."""


@audit.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--against", type=_PATH, help="A file or folder of rows that must stay unseen.")
@json_option
def leaks(folder: Path, against: Path | None, as_json: bool) -> None:
    """Look for documents, contexts, near-duplicates and parents that lie in two splits.

    With --against, also for runs of 13 words or whole questions of an outside file. Exit code 1
    where anything is found.
    """
    from curate import record
    from curate.audit import leaks as audits

    splits = record.read_splits(folder)
    found = audits.leaks(splits)
    if against is not None:
        rows = [row for members in splits.values() for row in members]
        found += audits.against(rows, record.read_rows(against))
    lines = [
        (leak.kind, leak.first_fold, leak.first_row, leak.second_fold, leak.second_row, leak.value)
        for leak in found
    ]
    text = f"no leak among {sum(map(len, splits.values())):,} rows"
    if found:
        text = console.table(("kind", "split", "row", "split", "row", "what"), lines)
    console.show([leak.to_json() for leak in found], text, as_json)
    if found:
        sys.exit(1)


@audit.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--split", "fold", default="train", show_default=True, help="Which split.")
@click.option("--limit", type=click.FloatRange(0.5, 1), help="Exit code 1 above this AUROC.")
@json_option
def shortcuts(folder: Path, fold: str, limit: float | None, as_json: bool) -> None:
    """Can the label be told without reading the context against the question?

    Three classifiers, cross-validated by document: one sees the question alone, one the context
    alone, one only their overlap and lengths. An AUROC of 0.5 is chance. `split.shortcut_limit`
    in a recipe makes a build hold a limit.
    """
    from curate import record
    from curate.audit import shortcuts as audits

    found = audits.shortcuts(
        [r for r in record.read_fold(folder, fold) if r.sufficient is not None]
    )
    lines = [
        (each.features, console.interval(each.auroc), ", ".join(name for name, _ in each.telltales))
        for each in found
    ]
    text = console.table(("told by", "AUROC, 95 %", "what tells it"), lines)
    empty = f"{fold}: one label or one context only, so that nothing can be told"
    console.show([each.to_json() for each in found], text if found else empty, as_json)
    if limit is not None and any((each.auroc["value"] or 0) > limit for each in found):
        sys.exit(1)


@audit.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--sample", default=40, show_default=True, help="Rows a method.")
@click.option("--seed", default=0, show_default=True, help="Draws other rows.")
@click.option("--project", metavar="NAME", help="Have them judged in this Label Studio project.")
@click.option(
    "--overlap",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="People a row, in Label Studio.",
)
@address_option
@json_option
def labels(
    folder: Path,
    sample: int,
    seed: int,
    project: str | None,
    overlap: int,
    address: str,
    as_json: bool,
) -> None:
    """Judge a sample of rows, labels unseen; tell each method's precision.

    They are asked for in the terminal; every judgement is kept at once in DIR/judgements.jsonl:
    stop with q, go on with the same command. Where input is no terminal nothing is asked, and what
    was judged is told.

    With --project the sample goes to Label Studio instead, and what people have said there comes
    back; run the same command again as they go on. Of several people most decide; a bad question,
    or a tie, is one that nobody can tell.
    """
    from curate import record
    from curate.audit import labels as audits

    rows = record.read_rows(folder)
    path = folder / audits.FILE
    drawn = audits.sample(rows, sample, seed)
    if project is not None:
        from curate.audit import by_annotators

        trip = by_annotators.round_trip(folder, drawn, project, address, overlap)
        click.echo(
            f"{trip.pushed.added:,} rows sent to '{project}' ({trip.pushed.address}), "
            f"{trip.judged:,} verdicts new",
            err=True,
        )
    elif sys.stdin.isatty():
        audits.judge(audits.todo(drawn, audits.read(path)), path, _verdict)
    found = audits.precision(audits.of(folder, {"": rows}))
    lines = [
        (each.method, each.judged, each.right, each.unsure, console.interval(each.to_json()))
        for each in found
    ]
    header = ("method", "judged", "right", "cannot tell", "precision, 95 %")
    console.show([each.to_json() for each in found], console.table(header, lines), as_json)


def _verdict(row: Any) -> Any:
    """Whether a row's context answers, asked of whoever sits at the terminal; no label is shown."""
    from curate.contract import told

    question = f"{told(row.history)}Q: {row.question}"
    click.echo(f"── {row.id}\n{row.context or '(no context)'}\n{question}\n")
    keys = {"y": "yes", "n": "no", "u": "unsure", "q": None}
    asked = "does the context answer it: yes, no, unsure; quit"
    return keys[click.prompt(asked, type=click.Choice(list(keys)))]
