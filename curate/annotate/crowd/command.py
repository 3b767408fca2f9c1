"""`curate annotate crowd`: the commands. They import what they need, so `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option, seed_option

_PATH = click.Path(path_type=Path)


@click.group()
def crowd() -> None:
    """Have workers of Mechanical Turk label rows, or write questions on passages.

    Export writes a batch to upload; import reads the results that the site gives back.
    """


@crowd.command()
@click.argument("path", metavar="FILE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="CSV file of the batch.")
@click.option(
    "--task",
    type=click.Choice(["label", "write"]),
    default="label",
    show_default=True,
    help="What workers do.",
)
@click.option(
    "--qualification", type=_PATH, help="Rows with sure labels, to tell whose answers are good."
)
@click.option(
    "--known-share",
    type=click.FloatRange(0, 0.9),
    default=0.1,
    show_default=True,
    help="Share of the tasks that is of the qualification set.",
)
@click.option("--limit", type=click.IntRange(1), help="Only so many rows or passages.")
@seed_option
@json_option
def export(
    path: Path,
    out: Path,
    task: str,
    qualification: Path | None,
    known_share: float,
    limit: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Write a batch for the rows or passages of FILE: OUT.csv, and OUT.html, its page.

    On the site: make a project, paste OUT.html into its design layout, publish a batch with
    OUT.csv. The files OUT.*.parquet are the key, and stay with you.

    Tasks of a qualification set are mixed in unseen. With the set itself as FILE the whole batch
    is one to find good workers with, before they write or label.

    \b
      curate annotate crowd export rows.parquet --qualification sure.parquet --out batch.csv
      curate annotate crowd export help.passages.parquet --task write --out writing.csv
    """
    from curate import record
    from curate.annotate.crowd import batch as module
    from curate.generate.llm import passages

    short = 0
    if task == "write":
        if qualification is not None:
            raise click.UsageError(
                "--qualification is for labelling; to find workers who may write, export the set "
                "as a batch of its own (--task label) and use the scores that import gives"
            )
        sources, short = passages.read(path, limit)
        batch = module.to_write([one.passage for one in sources])
    else:
        gold = record.read_rows(qualification) if qualification is not None else []
        batch = module.to_label(record.read_rows(path)[:limit], gold, known_share, seed)
    module.save(batch, out, seed)
    counts = {"tasks": len(batch.rows), "known": len(batch.gold), "too_short": short}
    text = (
        f"{counts['tasks']:,} tasks, {counts['known']:,} of the qualification set "
        f"({short:,} passages too short to ask about), written to "
        f"{out} (its page: {out.with_suffix('.html')})"
    )
    console.show(counts, text, as_json)


@crowd.command("import")
@click.argument("results", metavar="RESULTS.csv...", nargs=-1, type=_PATH, required=True)
@click.option("--batch", "published", type=_PATH, required=True, help="The CSV of export.")
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option(
    "--least-right",
    type=click.FloatRange(0, 1),
    default=0.75,
    show_default=True,
    help="Share of known tasks that a worker must have right.",
)
@click.option(
    "--least-known",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Known tasks before a worker is judged by them.",
)
@json_option
def import_(
    results: tuple[Path, ...],
    published: Path,
    out: Path,
    least_right: float,
    least_known: int,
    as_json: bool,
) -> None:
    """Read RESULTS of a batch: rows as most workers judge them, or the questions they wrote.

    Whoever fails the qualification set is left out; so are assignments that you rejected. Rows on
    which the others are divided get no label, for `curate annotate` to settle. OUT.workers.csv
    has each worker's record, with a score that the site's page of workers takes as a qualification.
    """
    from curate.annotate.crowd import gather

    counts = gather.gather(results, published, out, least_right, least_known)
    console.show(counts, _told(counts, out), as_json)


def _told(counts: dict[str, Any], out: Path) -> str:
    lines = [
        f"{counts['assignments']:,} assignments of {counts['workers']:,} workers; left out: "
        f"{console.listed(counts['left_out']) or 'none'}",
    ]
    found = counts["agreement"]
    if found["share"] is not None:
        alpha = found["alpha"]
        lines.append(
            f"agreement on {found['things']:,} tasks: {found['share']:.1%}"
            + (f", Krippendorff's alpha {alpha:.3f}" if alpha is not None else "")
        )
    lines.append(f"{counts['rows']:,} rows: {console.listed(counts['labels']) or 'none'}")
    if counts["dropped"]:
        lines.append(f"dropped: {console.listed(counts['dropped'])}")
    return "\n".join((*lines, f"written to {out} (workers: {out.stem}.workers.csv)"))
