"""The `train` command. Each subcommand imports what it needs, so that `--help` is instant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option

_PATH = click.Path(path_type=Path)


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
        problems = (f"--{str(e['loc'][0]).replace('_', '-')}: {e['msg']}" for e in error.errors())
        raise UserError("\n".join(problems)) from error


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


@cli.command()
@settings_options
@click.option("--out", type=_PATH, required=True, help="Folder for the run.")
@click.option("--method", type=click.Choice(["lora"]), help="How few parameters are trained.")
@click.option("--epochs", type=float, help="Passes over the train split, may be fractional.")
@click.option("--learning-rate", type=float)
@click.option("--rank", type=int, help="LoRA rank.")
@click.option("--dropout", type=float, help="LoRA dropout.")
@click.option("--head-weight", type=float, help="Weight of the sufficiency head; 0: no head.")
@click.option("--seed", type=int)
@click.option("--fresh", is_flag=True, help="Discard a checkpoint and start over.")
@json_option
def run(
    data: Path, out: Path, config: Path | None, fresh: bool, as_json: bool, **given: Any
) -> None:
    """Fine-tune with LoRA through shared-prefix packing, and write the run's folder.

    Killed at any moment and started again with the same arguments, it goes on from its last
    checkpoint and ends with the same weights.
    """
    from train import trainer

    progress = trainer.run(data, out, _settings(config, **given), fresh)
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
def settings() -> None:
    """Print every setting with its default and meaning, as YAML to start a --config from."""
    import yaml

    from train.settings import TrainSettings

    for name, field in TrainSettings.model_fields.items():
        if field.description:
            click.echo(f"# {field.description}")
        click.echo(yaml.safe_dump({name: field.default}).strip())


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)
