"""`curate annotate`: the group of its commands. They import what they need: `--help` is instant."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from curate import console
from curate.annotate.crowd.command import crowd
from curate.annotate.label_studio import command as label_studio
from curate.console import json_option, seed_option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from curate.annotate.measure import Measured
    from curate.record import Row

_PATH = click.Path(path_type=Path)
_gold_option = click.option(
    "--gold", type=_PATH, metavar="FILE", help="Rows with sure labels, which people judged unseen."
)


@click.group()
def annotate() -> None:
    """Have people label rows and write questions.

    \b
      curate annotate login                               # once: the server's address and token
      curate annotate push out/data --project help        # rows become Label Studio's tasks
      curate annotate pull --project help --out said.parquet
      curate annotate agreement said.parquet
      curate annotate adjudicate said.parquet --out rows.parquet
    """


annotate.add_command(crowd)
annotate.add_command(label_studio.login)
annotate.add_command(label_studio.push)
annotate.add_command(label_studio.pull)
annotate.add_command(label_studio.webhook)


def _gold(path: Path | None) -> "dict[str, Row]":
    from curate import record

    rows = record.read_rows(path) if path is not None else []
    return {row.id: row for row in rows if row.sufficient is not None}


@annotate.command()
@click.argument("path", metavar="ANNOTATIONS", type=_PATH)
@_gold_option
@seed_option
@json_option
def agreement(path: Path, gold: Path | None, seed: int, as_json: bool) -> None:
    """Tell how far annotators agree, on what, and how good each of them is.

    ANNOTATIONS is what `curate annotate pull` wrote. Of rows that several people judged: the share
    of pairs that agree, Krippendorff's alpha, Fleiss' and Cohen's kappa, with 95 % intervals over
    documents; each reason against the others. Of each annotator: agreement with the majority of
    the others, and how often yes and no are right by Dawid and Skene's model, which takes the rows
    of --gold as known.
    """
    from curate.annotate import annotations, measure

    found = measure.measure(annotations.read(path), _gold(gold), seed)
    console.show(found.to_json(), _told(found), as_json)


def _told(found: "Measured") -> str:
    lines: list[tuple[object, ...]] = [
        ("yes, no, bad question", found.repeated, *_each(found.label))
    ]
    lines += [
        (f"reason: {name}", each["rows"], *_each(each)) for name, each in found.reasons.items()
    ]
    if found.answers:
        lines.append(("the answer", "", console.interval(found.answers), "", "", ""))
    header = ("agreement on", "rows", "share", "Krippendorff's α", "Fleiss' κ", "Cohen's κ")
    people = [
        (
            one.annotator,
            one.annotations,
            "–" if one.seconds is None else f"{one.seconds:.0f} s",
            _share(one.yes),
            f"{one.same} of {one.compared}",
            f"{one.right} of {one.known}",
            _share(one.sensitivity),
            _share(one.specificity),
        )
        for one in found.annotators
    ]
    told = ("annotator", "rows", "median", "says yes", "with the others", "gold", "yes right")
    pairs = [
        (*pair["annotators"], pair["rows"], _share(pair["cohen_kappa"])) for pair in found.pairs
    ]
    text = [
        f"{found.rows:,} rows, {found.repeated:,} of them judged by several",
        console.table(header, lines),
        "",
        console.table((*told, "no right"), people),
    ]
    if len(pairs) > 1:
        text += ["", console.table(("annotator", "and", "rows", "Cohen's κ"), pairs)]
    return "\n".join(text)


def _each(found: "Mapping[str, Any]") -> list[str]:
    coefficients = ("share", "alpha", "fleiss_kappa", "cohen_kappa")
    return [console.interval(found.get(name)) for name in coefficients]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


@annotate.command()
@click.argument("path", metavar="ANNOTATIONS", type=_PATH)
@click.option("--out", type=_PATH, help="Parquet file for the rows.")
@click.option(
    "--by",
    type=click.Choice(["majority", "dawid-skene"]),
    default="majority",
    show_default=True,
    help="Who decides: most people, or a model of how often each is right.",
)
@click.option(
    "--second", type=_PATH, metavar="ANNOTATIONS", help="Pulled from a second pass: these decide."
)
@click.option("--to-project", metavar="NAME", help="Push the disputed rows for a second pass.")
@click.option("--rows", "whole", type=_PATH, metavar="FILE|DIR", help="Write all of these rows.")
@_gold_option
@label_studio.address_option
@json_option
def adjudicate(
    path: Path,
    out: Path | None,
    by: str,
    second: Path | None,
    to_project: str | None,
    whole: Path | None,
    gold: Path | None,
    address: str,
    as_json: bool,
) -> None:
    """Give each row one label from all that people said, and keep what dissents.

    OUT has the judged rows, each person's yes or no among their votes under a pseudonym; a row on
    which they are divided has no label. With --rows it has all rows of FILE or DIR, those that
    nobody judged as they were. OUT.dissent.parquet has the annotations that say otherwise than the
    result, OUT.dropped.parquet the rows whose question most find senseless.

    \b
      curate annotate adjudicate said.parquet --out rows.parquet --by dawid-skene
      curate annotate adjudicate said.parquet --to-project help-disputed     # a person decides:
      curate annotate pull --project help-disputed --out second.parquet
      curate annotate adjudicate said.parquet --second second.parquet --out rows.parquet
    """
    from curate.annotate import second_pass

    if (out is None) == (to_project is None):
        raise click.UsageError("either --out, for the rows, or --to-project, for a second pass")
    known = _gold(gold)
    if to_project is not None:
        pushed = second_pass.push(path, to_project, address, known)
        console.show(pushed.to_json(), label_studio.told_of_push(pushed, to_project), as_json)
        return
    assert out is not None  # noqa: S101 - for mypy; seen to above
    counts = second_pass.settle(path, out, by, second, whole, known)
    console.show(counts, _told_result(counts, out), as_json)


def _told_result(counts: dict[str, Any], out: Path) -> str:
    lines = [f"{counts['rows']:,} rows: {console.listed(counts['labels']) or 'none'}"]
    if counts["dropped"]:
        lines.append(f"dropped: {console.listed(counts['dropped'])}")
    lines.append(f"{counts['dissent']:,} annotations dissent")
    if counts["labels"].get("undecided"):
        lines.append("people are divided on the undecided: --to-project has someone decide")
    return "\n".join((*lines, f"written to {out}"))
