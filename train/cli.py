"""The `train` command. Each subcommand imports what it needs, so that `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.methods import METHODS
from train.model_commands import continual, export, forgetting, prefer, prune
from train.options import METHODS_EPILOG, PATH, settings_of, settings_options
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
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--epochs", type=float, help="Passes over the train split, may be fractional.")
@click.option("--learning-rate", type=float)
@click.option("--rank", type=int, help="Rank of LoRA and its kin.")
@click.option("--dropout", type=float, help="Dropout of LoRA and bottleneck adapters.")
@click.option("--top-layers", type=int, help="Blocks that selective and low-lr train.")
@click.option("--fuse", multiple=True, metavar="RUN", help="For adapterfusion; twice or more.")
@click.option(
    "--base-bits", type=click.Choice([4, 8]), help="Keep the base's linear weights in so many."
)
@click.option(
    "--optimizer", type=click.Choice(["adamw", "adam", "adamw8bit"]), help="adamw, unless given."
)
@click.option("--head-weight", type=float, help="Weight of the sufficiency head; 0: no head.")
@click.option("--replay", type=float, help="Rehearsed replies of the base for each row, e.g. 0.2.")
@click.option("--kl", type=float, help="Learn those as divergence from the base, weighted so.")
@click.option(
    "--refusal-aware",
    type=float,
    help="0 to 1: teach less of what the untrained model cannot answer, and to decline more.",
)
@click.option(
    "--abstain-reward",
    type=float,
    help="0 to 1: what declining earns where there is an answer, which earns 1.",
)
@click.option("--row-weights", is_flag=True, default=None, help="Count rows by their weight.")
@click.option("--average", type=float, help="Share of what training changed that is kept.")
@click.option("--forgetting-limit", type=float, help="Fail where plain text costs more, e.g. 0.1.")
@click.option("--seed", type=int)
@click.option(
    "--offload",
    type=click.Choice(["cpu", "disk"]),
    help="Where frozen blocks lie until they run (GPU).",
)
@click.option("--shard", is_flag=True, default=None, help="Split frozen weights (torchrun, FSDP).")
@click.option("--lean", is_flag=True, default=None, help="Less memory, slower (CPU).")
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

    settings = settings_of(config, fuse=list(fuse) or None, **given)
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
