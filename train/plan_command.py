"""`train plan`: what a run will need, and whether to train at all."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from curate.errors import UserError
from train.options import METHODS_EPILOG, PATH, model_options, settings_of, training_options


@click.command(epilog=METHODS_EPILOG)
@click.option("--data", type=PATH, help="Folder of `curate build`: its largest pack, its time.")
@model_options
@training_options
@click.option("--tokens", type=click.IntRange(1), help="Without --data: tokens that a pack shares.")
@click.option("--rows", type=click.IntRange(1), help="Without --data: rows of a pack.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True)
@click.option(
    "--gpu-memory",
    type=click.FloatRange(0, min_open=True),
    metavar="GIB",
    help="Of each GPU: what would fit?",
)
@click.option(
    "--launch", type=PATH, metavar="DIR", help="Write what starts other trainers on --gpus to DIR."
)
@click.option("--time/--no-time", "timed", default=True, help="Measure the time, some seconds.")
@click.option("--decide", is_flag=True, help="Train at all? Measured: as long as two runs take.")
@click.option("--goal", metavar="METRIC[=VALUE]", help="With --decide: what decides; f1 if none.")
@click.option("--out", type=PATH, help="With --decide: folder for what is measured.")
@json_option
def plan(
    data: Path | None,
    config: Path | None,
    tokens: int | None,
    rows: int | None,
    gpus: int,
    gpu_memory: float | None,
    launch: Path | None,
    timed: bool,
    decide: bool,
    goal: str | None,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say what a run will need: memory, time, storage, network. No weights are loaded.

    Takes the options of `train run`.

    With --decide, whether to prompt, retrieve, fine-tune or collect more data: the untrained model
    is asked the validation rows, and the settings are trained on 10, 25, 50 and 100 % of the rows.
    Killed and started again, it goes on.

    \b
      train plan --data out/data
      train plan --model some/7b-model --tokens 2000 --gpu-memory 24 --gpus 4 --launch out/four
      train plan --data out/data --decide --goal f1=0.7 --out out/decision
    """
    if decide:
        if tokens or rows or gpus > 1 or gpu_memory or launch or not timed:
            raise UserError(
                "--decide measures here: no --tokens, --rows, --gpus, --launch, --no-time"
            )
        _decide(data, out, goal or "f1", settings_of(config, **given), as_json)
        return
    if goal is not None or out is not None:
        raise UserError("--goal and --out go with --decide")
    if data is not None and (tokens is not None or rows is not None):
        raise UserError("--tokens and --rows are for packs that no --data tells of")
    from train import launch as launching
    from train import plan as planning
    from train.estimate import Shape

    settings = settings_of(config, **given)
    shape = Shape(prefix=tokens or Shape.prefix, rows=rows or settings.max_rows)
    found = planning.plan(settings, data, shape, gpus, gpu_memory, timed)
    if launch is not None:
        found = replace(found, launch=launching.write(launch, settings, gpus))
    console.show(found.to_json(), found.text(), as_json)


def _decide(data: Path | None, out: Path | None, goal: str, settings: Any, as_json: bool) -> None:
    from curate.files import writable_folder
    from train.decide import measure
    from train.verdict import weigh

    if data is None or out is None:
        raise UserError("--decide measures: give --data and a folder for what it finds, --out")
    metric, sign, value = goal.partition("=")
    try:
        wanted = float(value) if sign else None
    except ValueError as error:
        raise UserError(f"--goal {goal}: {value} is no number") from error
    if wanted is not None and not 0 < wanted <= 1:
        raise UserError(f"--goal {goal}: goals are above 0 and at most 1, e.g. {metric}=0.7")
    writable_folder(out)
    verdict = weigh(measure(data, out, settings, metric, wanted))
    console.show(verdict.to_json(), verdict.text(), as_json)
