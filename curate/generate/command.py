"""`curate generate`: the commands. They import what they need, so that `--help` is instant."""

from pathlib import Path

import click

from curate import console
from curate.console import json_option, seed_option
from curate.generate.llm.command import llm

_PATH = click.Path(path_type=Path)


@click.group()
def generate() -> None:
    """Write questions: from facts by templates, or from passages by a language model."""


@generate.command()
@click.argument("path", metavar="FILE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Parquet file for the rows.")
@click.option("--subject", default="", help="Column of the names; the first by default.")
@click.option("--templates", type=_PATH, help="YAML with wordings of your own.")
@click.option(
    "--phrasings", type=click.IntRange(1), default=2, show_default=True, help="Questions a fact."
)
@click.option(
    "--together", type=click.IntRange(1), default=4, show_default=True, help="Subjects a context."
)
@click.option("--licence", default="", help="Kept with every row.")
@click.option("--dry-run", is_flag=True, help="Show how each column is said and asked.")
@seed_option
@json_option
def templates(
    path: Path,
    out: Path,
    subject: str,
    templates: Path | None,
    phrasings: int,
    together: int,
    licence: str,
    dry_run: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Make questions of a FILE of facts, and for each a twin that its context does not answer.

    FILE is a table (.csv, .jsonl, .parquet) with a subject a row, or a .json object
    {"a name": {"key": "value"}}. Contexts state the facts of several subjects; a twin's context
    lacks the one sentence that answers. Empty cells give questions that nobody can answer.

    How a column is said and asked is told from its name and values; --dry-run shows it. Other
    wordings, with {subject} and {value}:

    \b
      skip: [internal id]
      columns:
        opened:
          says: "{subject} was opened in {value}."
          asks: ["When was {subject} opened?", "In which year did {subject} open?"]
    """
    from curate import record, typed_yaml
    from curate.generate import facts
    from curate.generate import templates as module

    own = typed_yaml.load(templates, module.Templates) if templates else module.Templates()
    subjects = facts.read(path, subject)
    if dry_run:
        lines = module.example(subjects, own)
        console.show(lines, console.table(("column", "said", "asked"), lines), as_json)
        return
    made = module.write(subjects, path.stem, own, phrasings, together, licence, seed)
    labels = record.write_rows(made.rows, out)
    counts = {"rows": len(made.rows), "labels": dict(labels), "left_out": dict(made.left_out)}
    text = f"{len(made.rows):,} rows ({console.listed(labels)}) written to {out}"
    if made.left_out:
        text += f"\ntwins left out: {console.listed(made.left_out)}"
    console.show(counts, text, as_json)


generate.add_command(llm)
