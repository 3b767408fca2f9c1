"""`curate insufficient`: the command. It imports what it needs, so that `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option, seed_option, share_option, workers_option

_PATH = click.Path(path_type=Path)


def _methods(_: Any, __: Any, value: str | None) -> list[str] | None:
    """Names of methods, each of them one that there is."""
    if value is None:
        return None
    from typing import get_args

    from curate.recipe import Method

    names, known = [name.strip() for name in value.split(",")], get_args(Method)
    for name in names:
        if name not in known:
            raise click.BadParameter(f"there is no method '{name}'; known: {', '.join(known)}")
    return names


@click.command()
@click.argument("path", metavar="FILE", type=_PATH)
@click.option("--out", type=_PATH, required=True, help="Parquet file for all rows.")
@click.option(
    "--methods", callback=_methods, help="Names, commas between; by default all without a model."
)
@share_option
@click.option(
    "--swap-from",
    type=click.Choice(["any", "same_document", "other_documents"]),
    default="any",
    show_default=True,
    help="Where context_swapped finds its passages.",
)
@click.option(
    "--swap-rank",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Its nearest passage let pass.",
)
@click.option(
    "--passages", type=click.IntRange(2), default=3, show_default=True, help="Of noise_passages."
)
@click.option("--writer", help="Address of a model that writes: http://127.0.0.1:8080/v1.")
@click.option("--reader", "readers", multiple=True, help="Address of a model that votes; several.")
@click.option("--judge", help="Address of a model that is asked whether the context suffices.")
@click.option(
    "--predictions", multiple=True, help="A run's predictions.parquet: a reader's votes; several."
)
@click.option("--decide", help="Votes that must not contradict the label, commas between.")
@click.option(
    "--disagreement",
    type=click.Choice(["drop", "annotate"]),
    default="drop",
    show_default=True,
    help="Rows that votes contradict: dropped, or to people too (OUT.annotate.parquet).",
)
@seed_option
@workers_option
@json_option
def insufficient(
    path: Path,
    out: Path,
    methods: list[str] | None,
    writer: str | None,
    readers: tuple[str, ...],
    judge: str | None,
    predictions: tuple[str, ...],
    decide: str | None,
    disagreement: Any,
    seed: int,
    workers: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Add rows whose context does not answer to a FILE of rows.

    Documents without a fold get one first: no method borrows across folds. Every row keeps the
    votes of its verifiers; candidates that failed lie in OUT.dropped.parquet with the reason, and
    OUT.contrast.parquet holds answerable test rows that look unanswerable.

    \b
      no_context         the question alone
      evidence_removed   the sentences with the answer cut
      truncated          the context cut before or behind them
      partial_evidence   one of several supporting passages missing
      context_swapped    a passage near the question, without the answer
      noise_passages     several of them (twin: distracted, with the answer among them)
      entity_swapped     a name in the question replaced by another of the context
      number_swapped     the same with a number, date or amount
      negated, antonym   the question asks for the opposite
      false_premise      the question presumes what the context does not say
      underspecified     the question does not say what it is about
    \b
    With a model (--writer; rematched: --reader), answers kept in the user's cache:
      rewritten          the context retold without the answer
      recombined         passages that do not entail the answer
      rematched          a near passage on which the reader answers wrongly
      false_premise_written, underspecified_written
    """
    from pydantic import ValidationError

    from curate import single_steps
    from curate.recipe import FoldShares, InsufficientSettings, ModelSettings, VerifySettings

    try:
        verify = VerifySettings(
            readers=[ModelSettings(url=address) for address in readers],
            judge=ModelSettings(url=judge) if judge else None,
            predictions=list(predictions),
            disagreement=disagreement,
            **({"decide": decide.split(",")} if decide else {}),
        )
        model = ModelSettings(url=writer) if writer else None
        chosen = InsufficientSettings(methods=methods, writer=model, verify=verify, **settings)
    except ValidationError as error:
        raise click.UsageError("; ".join(each["msg"] for each in error.errors())) from error
    counts = single_steps.insufficient(path, out, chosen, FoldShares(), seed, workers)
    lines = [
        (name, found.get("made", 0), sum(found.values()) - found.get("made", 0), _failed(found))
        for name, found in counts["methods"].items()
    ]
    text = "\n".join(
        (
            console.table(("method", "made", "failed", "why"), lines),
            "",
            f"{counts['rows']:,} rows written to {out}, {counts['contrast']:,} of the contrast set "
            "beside it",
        )
    )
    console.show(counts, text, as_json)


def _failed(found: dict[str, int]) -> str:
    return console.listed({name: count for name, count in found.items() if name != "made"})
