"""`train search`: settings that beat the defaults, or the finding that none do."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.methods import METHODS
from train.options import METHODS_EPILOG, PATH, settings_of, settings_options


@click.command(epilog=METHODS_EPILOG)
@settings_options
@click.option("--out", type=PATH, required=True, help="Folder for the study and its runs.")
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--epochs", type=float, help="Passes over the train split, may be fractional.")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=VALUES",
    help="A setting and its LOW..HIGH or A,B,C; several times. None: what usually matters.",
)
@click.option("--trials", type=click.IntRange(1), help="In all: 20, or every point of a grid.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Start none later.")
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random", "grid"]),
    default="tpe",
    show_default=True,
    help="Bayesian (tree of Parzen estimators), at random, or all of a grid.",
)
@click.option(
    "--metric",
    default="coverage_at_risk_10",
    show_default=True,
    help="Of `abstain evaluate`, or `loss`; on the validation split.",
)
@json_option
def search(
    data: Path,
    out: Path,
    config: Path | None,
    vary: tuple[str, ...],
    trials: int | None,
    minutes: float | None,
    sampler: str,
    metric: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Look for settings that beat the defaults; judge them on the validation split.

    Trials whose loss is above the median of others are stopped early. Killed and started again, it
    goes on; with more --trials too. In the end the best settings are compared with the defaults on
    the test split, and written to best.yaml for `train run --config`.

    \b
      train search --data out/data --out out/search --trials 30
      train search --data out/data --out out/search --sampler grid \\
        --vary rank=8,16 --vary learning_rate=0.0002,0.0004
    """
    from train import search as searching
    from train.space import space_of

    settings = settings_of(config, **given)
    plan = searching.Search(data, out, settings, space_of(vary, settings), metric, sampler)
    found = searching.search(plan, trials, minutes)
    console.show(found.to_json(), found.text(), as_json)
