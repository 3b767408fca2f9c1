"""The `curate` command. Each subcommand imports what it needs, so that `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.annotate.command import annotate
from curate.audit.commands import audit
from curate.console import json_option, seed_option, share_option, workers_option
from curate.generate.command import generate
from curate.insufficient.command import insufficient
from curate.scrape.command import scrape

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
@workers_option
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
    console.show(manifest, _told(manifest, out), as_json)


def _told(manifest: dict[str, Any], out: Path) -> str:
    """A build's result for a person: what each step did, and what is in the splits."""
    steps = [
        (
            s["step"],
            s["rows_in"],
            s["created"],
            s["kept"],
            s["dropped"],
            console.listed(s["reasons"]),
        )
        for s in manifest["steps"]
    ]
    splits = [
        (
            fold,
            sum(c["label"].values()),
            *(c["label"].get(k, 0) for k in _LABELS),
            console.listed(c["reason"]),
        )
        for fold, c in manifest["splits"].items()
    ]
    return "\n".join(
        (
            console.table(("step", "in", "created", "kept", "dropped", "why"), steps),
            "",
            console.table(("split", "rows", *_LABELS, "reasons"), splits),
            "",
            f"written to {out} (look at {out / 'report.html'})",
        )
    )


_LABELS = ("sufficient", "insufficient")


_BENCHMARKS = ("squad", "triviaqa", "nq", "nq_open", "coqa", "quac")
_KINDS = (*_BENCHMARKS, "table", "site", "stackexchange", "discourse")


@cli.command("import")
@click.argument("kind", type=click.Choice(_KINDS))
@click.argument("path")
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option("--licence", default="", help="Licence of the source, kept with every row.")
@click.option("--evidence", help="TriviaQA's folder of documents, if it is not beside qa.")
@click.option("--base-url", help="Address of the site or forum, for the rows' URLs.")
@json_option
def import_(kind: str, path: str, out: Path, licence: str, as_json: bool, **more: Any) -> None:
    """Read one source into a Parquet file of rows, unchanged.

    \b
    KIND           PATH, a file or hub:NAME where nothing else is said
      squad          SQuAD 1.1 or 2.0, official JSON
      triviaqa       a file of TriviaQA's qa folder; evidence is found beside it
      nq, nq_open    Natural Questions (.jsonl, .jsonl.gz), and its open form
      coqa, quac     conversations, each turn with its history
      table          .jsonl, .json, .csv, .parquet; HotpotQA and MuSiQue too
      site           a folder of HTML files; passages go to OUT.passages.parquet
      stackexchange  Posts.xml of a dump, or JSON of the API (a file, a folder)
      discourse      topics as JSON (a file, a folder)

    Files are read as a stream: memory stays flat, whatever their size.
    """
    from pydantic import TypeAdapter, ValidationError

    from curate import recipe, record
    from curate.sources import reading

    value = {"kind": kind, "path": path, "licence": licence, "name": Path(path).stem}
    given = {name: option for name, option in more.items() if option is not None}
    try:
        source = TypeAdapter(recipe.Source).validate_python(value | given)
    except ValidationError as error:
        names = ", ".join(f"--{str(one['loc'][-1]).replace('_', '-')}" for one in error.errors())
        raise click.UsageError(f"{kind} has no use for {names}") from error
    rows, passages = reading.read(source)
    labels = record.write_rows(rows, out)
    if passages:
        record.write_table(record.passages_to_table(passages), record.passages_beside(out))
    counts = {"rows": labels.total(), "labels": dict(labels), "passages": len(passages)}
    text = (
        f"{labels.total():,} rows ({console.listed(labels)}), {len(passages):,} passages "
        f"written to {out}"
    )
    console.show(counts, text, as_json)


@cli.command()
@click.argument("path", metavar="FILE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Folder for the data set.")
@share_option
@click.option("--balance/--no-balance", default=True, help="Leave out train's surplus label.")
@seed_option
@json_option
def split(path: Path, out: Path, share: float, balance: bool, seed: int, as_json: bool) -> None:
    """Make a data-set folder of a FILE of rows: splits, card, report.

    Folds that rows have are kept, and so are those of an earlier folder at OUT.
    """
    from curate import single_steps
    from curate.recipe import FoldShares, SplitSettings

    settings = SplitSettings(balance=balance)
    manifest = single_steps.write_splits(path, out, share, settings, FoldShares(), seed)
    console.show(manifest, _told(manifest, out), as_json)


cli.add_command(scrape)
cli.add_command(generate)
cli.add_command(insufficient)
cli.add_command(audit)
cli.add_command(annotate)


@cli.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@json_option
def report(folder: Path, as_json: bool) -> None:
    """Write a data set's report and card anew, with the labels judged since."""
    from curate import dataset

    quality = dataset.refresh(folder)["quality"]
    console.show(quality, f"written to {folder / 'report.html'}", as_json)


@cli.command()
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["squad", "messages", "prompt-completion"]),
    required=True,
    help="SQuAD 2.0's JSON, or JSONL for TRL's trainers.",
)
@click.option("--split", "fold", help="One split alone; all of them by default.")
@click.option("--phrase", help="What stands for an answer where there is none.")
@click.option(
    "--spans-only", is_flag=True, help="Leave out what SQuAD's format cannot hold, and count it."
)
@click.option("--out", type=_PATH, required=True, help="The file to write.")
@json_option
def export(
    folder: Path,
    form: str,
    fold: str | None,
    phrase: str | None,
    spans_only: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Write a data set as other programs read it.

    messages and prompt-completion are rendered with the prompt that `train` and `abstain` use.
    Parquet needs no export: `datasets.load_dataset(DIR)` reads the folder as it is.
    """
    from curate import exports, record
    from curate.contract import Contract

    if spans_only and form != "squad":
        raise click.UsageError(f"--spans-only: {form} holds every row; it is for --format squad")
    rows = record.read_fold(folder, fold) if fold else record.read_rows(folder)
    contract = Contract(phrase) if phrase else Contract()
    count = exports.export(rows, form, out, contract, spans_only)
    left = len(rows) - count
    text = f"{count:,} rows written to {out}" + (f", {left:,} left out" if left else "")
    console.show({"rows": count, "left_out": left}, text, as_json)


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
        value = {name: getattr(row, name) for name in record.SCHEMA.names}
        console.show(value, _shown(row), as_json)


def _shown(row: Any) -> str:
    """A row for a person."""
    label = {True: "sufficient", False: f"insufficient: {row.reason}", None: "not labelled"}
    return "\n".join(
        (
            f"── {row.id}  {row.fold}  {row.method}  {label[row.sufficient]}",
            row.context or "(no context)",
            f"Q: {row.question}",
            f"A: {' | '.join(row.answers) or '—'}",
            "",
        )
    )


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)
