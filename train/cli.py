"""The `train` command. Each subcommand imports what it needs, so that `--help` is instant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.methods import METHODS

_PATH = click.Path(path_type=Path)
_METHODS = (
    "\b\nMethods, and the learning rate of each unless one is given; those with a * have the\n"
    "dropout that MC dropout needs:\n"
) + "\n".join(
    f"{'*' if method.dropout else ' '} {name:14}{method.rate:<8g}{method.trains}"
    for name, method in METHODS.items()
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grounded-abstain")
def cli() -> None:
    """Fine-tune a model to abstain when the context does not hold the answer.

    \b
    Look before you leap, then train on the CPU:
      train preflight --data out/data
      train run --data out/data --out out/run
    """


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that `run` and `preflight` share; what is not given comes from --config."""
    for option in (
        click.option("--config", type=_PATH, help="YAML file of settings (see `train settings`)."),
        click.option("--max-tokens", type=int, help="Tokens a row may have, prompt and answer."),
        click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded)."),
        click.option("--data", type=_PATH, required=True, help="Folder of `curate build`."),
    ):
        command = option(command)
    return command


def _problem(error: Any) -> str:
    """One of pydantic's errors; without a place where it is about several settings."""
    message = error["msg"].removeprefix("Value error, ")
    return f"--{str(error['loc'][0]).replace('_', '-')}: {message}" if error["loc"] else message


def _settings(config: Path | None, **given: Any) -> Any:
    from pydantic import ValidationError

    from curate import typed_yaml
    from curate.errors import UserError
    from train.settings import TrainSettings

    base = typed_yaml.load(config, TrainSettings) if config is not None else TrainSettings()
    values = base.model_dump() | {k: v for k, v in given.items() if v is not None}
    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        raise UserError("\n".join(map(_problem, error.errors()))) from error


@cli.command()
@settings_options
@json_option
def preflight(
    data: Path, model: str | None, max_tokens: int | None, config: Path | None, as_json: bool
) -> None:
    """Count what a run would read and print one exact prompt; exit code 1 if it would fail."""
    from train import preflight as checks

    result = checks.preflight(data, _settings(config, model=model, max_tokens=max_tokens))
    console.show(result.to_json(), result.text(), as_json)
    if result.errors:
        raise SystemExit(1)


@cli.command(epilog=_METHODS)
@click.option("--data", type=_PATH, help="Folder of `curate build`: its largest pack, its time.")
@click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded).")
@click.option("--config", type=_PATH, help="YAML file of settings (see `train settings`).")
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--rank", type=int, help="Rank of LoRA and its kin.")
@click.option("--tokens", type=int, help="Without --data: tokens that the rows of a pack share.")
@click.option("--rows", type=int, help="Without --data: rows of a pack.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True)
@click.option("--gpu-memory", type=float, metavar="GIB", help="Of each GPU: what would fit?")
@click.option("--time/--no-time", "timed", default=True, help="Measure the time, some seconds.")
@json_option
def plan(
    data: Path | None,
    config: Path | None,
    tokens: int | None,
    rows: int | None,
    gpus: int,
    gpu_memory: float | None,
    timed: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Say what a run will need: memory, time, storage, network. No weights are loaded.

    \b
      train plan --data out/data
      train plan --model some/7b-model --tokens 2000 --gpu-memory 24 --gpus 4
    """
    from train import plan as planning
    from train.estimate import Shape

    settings = _settings(config, **given)
    shape = Shape(prefix=tokens or Shape.prefix, rows=rows or settings.max_rows)
    found = planning.plan(settings, data, shape, gpus, gpu_memory, timed)
    console.show(found.to_json(), found.text(), as_json)


@cli.command(epilog=_METHODS)
@settings_options
@click.option("--out", type=_PATH, required=True, help="Folder for the run.")
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--epochs", type=float, help="Passes over the train split, may be fractional.")
@click.option("--learning-rate", type=float)
@click.option("--rank", type=int, help="Rank of LoRA and its kin.")
@click.option("--dropout", type=float, help="Dropout of LoRA and bottleneck adapters.")
@click.option("--top-layers", type=int, help="Blocks that selective and low-lr train.")
@click.option("--fuse", multiple=True, metavar="RUN", help="For adapterfusion; twice or more.")
@click.option("--head-weight", type=float, help="Weight of the sufficiency head; 0: no head.")
@click.option("--replay", type=float, help="Rehearsed replies of the base for each row, e.g. 0.2.")
@click.option("--kl", type=float, help="Learn those as divergence from the base, weighted so.")
@click.option("--average", type=float, help="Share of what training changed that is kept.")
@click.option("--forgetting-limit", type=float, help="Fail where plain text costs more, e.g. 0.1.")
@click.option("--seed", type=int)
@click.option("--fresh", is_flag=True, help="Discard a checkpoint and start over.")
@json_option
def run(
    data: Path,
    out: Path,
    config: Path | None,
    fuse: tuple[str, ...],
    fresh: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fine-tune through shared-prefix packing, and write the run's folder.

    Killed at any moment and started again with the same arguments, it goes on from its last
    checkpoint and ends with the same weights.
    """
    from train import parallel, trainer

    settings = _settings(config, fuse=list(fuse) or None, **given)
    try:
        progress = trainer.run(data, out, settings, fresh)
        if parallel.rank() > 0:
            return
    finally:
        parallel.stop()
    best = progress.best()
    loss = f", validation loss {best['total']:.4f}" if best else ""
    text = (
        f"{progress.step} steps in {progress.seconds / 60:.1f} minutes, "
        f"{progress.peak_memory:.2f} GiB at most{loss}\nwritten to {out}; "
        f"next: abstain calibrate {out} --data {data}"
    )
    value = {
        "run": str(out),
        "steps": progress.step,
        "seconds": progress.seconds,
        "peak_memory_gib": progress.peak_memory,
        "best": best,
    }
    console.show(value, text, as_json)


@cli.command()
@click.argument("run", type=_PATH)
@json_option
def forgetting(run: Path, as_json: bool) -> None:
    """Measure what RUN has unlearnt: plain text, instructions, common knowledge, over-refusal."""
    from train import forgetting as measuring

    found = measuring.forgetting(run)
    console.show(found.to_json(), found.text(), as_json)


@cli.command()
def settings() -> None:
    """Print every setting with its default and meaning, as YAML to start a --config from."""
    import yaml

    from train.settings import TrainSettings

    for name, field in TrainSettings.model_fields.items():
        if field.description:
            click.echo(f"# {field.description}")
        if name == "learning_rate":
            for kind, method in METHODS.items():
                click.echo(f"#   {kind} {method.rate:g}: {method.why}")
        click.echo(yaml.safe_dump({name: field.default}).strip())


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)


if __name__ == "__main__":  # `torchrun -m train.cli`
    main()
