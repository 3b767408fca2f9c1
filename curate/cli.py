"""The `curate` command. Each subcommand imports what it needs, so that `--help` is instant."""

from pathlib import Path

import click

from curate import console
from curate.console import json_option

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grounded-abstain")
def cli() -> None:
    """Build question-answering data with honest unanswerable examples.

    \b
    A first data set from the demonstration site:
      curate build data/recipes/demo.yaml --out out/data
      curate show out/data -n 3
    """


@cli.command()
@click.argument("recipe", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder for the data set.")
@click.option("--workers", default=1, show_default=True, help="Processes for row-wise steps.")
@click.option("--fresh", is_flag=True, help="Redo finished steps. The fold ledger stays.")
@json_option
def build(recipe: Path, out: Path, workers: int, fresh: bool, as_json: bool) -> None:
    """Run the RECIPE.yaml and write the data-set folder.

    Killed at any moment and started again, it takes up where it stopped. Every row that is left
    out lies in dropped.parquet with the step and the reason.

    \b
    A recipe needs a name and its sources; everything else has defaults:
      name: my-help-site
      sources:
        - {kind: squad, path: questions.json}
        - {kind: site, path: html-pages}
        - {kind: table, path: rows.csv, columns: {question: q}}
      insufficient: {share: 0.5}
      folds: {train: 0.6, validation: 0.1, calibration: 0.15, test: 0.15}
    """
    from curate import pipeline

    manifest = pipeline.build(recipe, out, workers, fresh)
    steps = [
        (s["step"], s["rows_in"], s["created"], s["kept"], s["dropped"], _listed(s["reasons"]))
        for s in manifest["steps"]
    ]
    splits = [
        (
            fold,
            sum(c["label"].values()),
            *(c["label"].get(k, 0) for k in _LABELS),
            _listed(c["reason"]),
        )
        for fold, c in manifest["splits"].items()
    ]
    text = "\n".join(
        (
            console.table(("step", "in", "created", "kept", "dropped", "why"), steps),
            "",
            console.table(("split", "rows", *_LABELS, "reasons"), splits),
            "",
            f"written to {out} (look at {out / 'report.html'})",
        )
    )
    console.show(manifest, text, as_json)


_LABELS = ("sufficient", "insufficient")


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())


@cli.command("import")
@click.argument("kind", type=click.Choice(["squad", "table", "site"]))
@click.argument("path")
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option("--licence", default="", help="Licence of the source, kept with every row.")
@json_option
def import_(kind: str, path: str, out: Path, licence: str, as_json: bool) -> None:
    """Read one source into a Parquet file of rows, unchanged.

    KIND is squad (official JSON), table (.jsonl, .csv, .parquet) or site (folder of HTML files);
    PATH may be hub:NAME for squad and table. A site's passages go to FILE.passages.parquet.
    """
    from pydantic import TypeAdapter

    from curate import pipeline, recipe, record

    source = TypeAdapter(recipe.Source).validate_python(
        {"kind": kind, "path": path, "licence": licence, "name": Path(path).stem}
    )
    content = pipeline.read_source(source)
    record.write_table(record.to_table(content.rows), out)
    if content.passages:
        passages = out.with_suffix(".passages.parquet")
        record.write_table(record.passages_to_table(content.passages), passages)
    counts = {"rows": len(content.rows), "passages": len(content.passages)}
    text = f"{len(content.rows):,} rows, {len(content.passages):,} passages written to {out}"
    console.show(counts, text, as_json)


@cli.command()
@click.argument("path", type=_PATH)
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=5, show_default=True, help="How many rows."
)
@click.option("--seed", default=0, show_default=True, help="Draws other rows.")
@json_option
def show(path: Path, count: int, seed: int, as_json: bool) -> None:
    """Print a few rows of a FILE or data-set folder, drawn at random."""
    import random

    from curate import record

    rows = record.read_rows(path)
    for row in random.Random(seed).sample(rows, min(count, len(rows))):
        label = {True: "sufficient", False: f"insufficient: {row.reason}", None: "not labelled"}
        value = {name: getattr(row, name) for name in record.SCHEMA.names}
        text = "\n".join(
            (
                f"── {row.id}  {row.fold}  {row.method}  {label[row.sufficient]}",
                row.context or "(no context)",
                f"Q: {row.question}",
                f"A: {' | '.join(row.answers) or '—'}",
                "",
            )
        )
        console.show(value, text, as_json)


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)
