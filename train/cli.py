"""The `train` command. Each subcommand imports what it needs, so that `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.methods import METHODS
from train.model_commands import continual, export, forgetting, prefer, prune
from train.options import METHODS_EPILOG, PATH, settings_of, settings_options, training_options
from train.plan_command import plan
from train.search_command import search


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grounded-abstain")
def cli() -> None:
    """Fine-tune a model to abstain when the context does not hold the answer.

    \b
    Look before you leap, then train on the CPU:
      train preflight --data out/data
      train run --data out/data --out out/run
    """


@cli.command()
@settings_options
@json_option
def preflight(
    data: Path, model: str | None, max_tokens: int | None, config: Path | None, as_json: bool
) -> None:
    """Count what a run would read and print one exact prompt; exit code 1 if it would fail."""
    from train import preflight as checks

    result = checks.preflight(data, settings_of(config, model=model, max_tokens=max_tokens))
    console.show(result.to_json(), result.text(), as_json)
    if result.errors:
        raise SystemExit(1)


@cli.command(epilog=METHODS_EPILOG)
@settings_options
@click.option("--out", type=PATH, required=True, help="Folder for the run.")
@training_options
@click.option("--fresh", is_flag=True, help="Discard a checkpoint and start over.")
@json_option
def run(
    data: Path,
    out: Path,
    config: Path | None,
    fresh: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Fine-tune through shared-prefix packing, and write the run's folder.

    Killed at any moment and started again with the same arguments, it goes on from its last
    checkpoint and ends with the same weights.
    """
    from train import parallel, trainer

    settings = settings_of(config, **given)
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
def settings() -> None:
    """Print every setting with its default and meaning, as YAML to start a --config from."""
    import yaml

    from train.settings import TrainSettings

    for name, field in TrainSettings.model_fields.items():
        if field.description:
            click.echo(f"# {field.description}")
        if isinstance(field.json_schema_extra, dict):
            click.echo(f"#   {field.json_schema_extra['why']}")
        if name == "learning_rate":
            for kind, method in METHODS.items():
                click.echo(f"#   {kind} {method.rate:g}: {method.why}")
        click.echo(yaml.safe_dump({name: field.default}).strip())


for command in (plan, search, prefer, export, prune, forgetting, continual):
    cli.add_command(command)


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)


if __name__ == "__main__":  # `torchrun -m train.cli`
    main()
