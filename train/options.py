"""Options that several subcommands of `train` share, and the settings that they give."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from train.methods import METHODS

PATH = click.Path(path_type=Path)
METHODS_EPILOG = (
    "\b\nMethods, and the learning rate of each unless one is given; those with a * have the\n"
    "dropout that MC dropout needs:\n"
) + "\n".join(
    f"{'*' if method.dropout else ' '} {name:14}{method.rate:<8g}{method.trains}"
    for name, method in METHODS.items()
)


Command = Callable[..., None]


def _all(command: Command, *options: Callable[[Command], Command]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def model_options(command: Command) -> Command:
    """Options of every subcommand with settings; what is not given comes from --config."""
    return _all(
        command,
        click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded)."),
        click.option("--max-tokens", type=int, help="Tokens a row may have, prompt and answer."),
        click.option("--config", type=PATH, help="YAML file of settings (see `train settings`)."),
    )


def settings_options(command: Command) -> Command:
    """The same, and the data that `run`, `search` and `preflight` read."""
    data = click.option("--data", type=PATH, required=True, help="Folder of `curate build`.")
    return data(model_options(command))


def training_options(command: Command) -> Command:
    """What decides how a run is trained: of `run`, and of `plan` beforehand."""
    bits = click.Choice([4, 8])
    optimizers = click.Choice(["adamw", "adam", "adamw8bit"])
    return _all(
        command,
        click.option(
            "--method", type=click.Choice(list(METHODS)), help="What is trained: see below."
        ),
        click.option("--epochs", type=float, help="Passes over the train split, or a part of one."),
        click.option("--learning-rate", type=float),
        click.option("--rank", type=int, help="Rank of LoRA and its kin."),
        click.option("--dropout", type=float, help="Dropout of LoRA and bottleneck adapters."),
        click.option("--top-layers", type=int, help="Blocks that selective and low-lr train."),
        click.option(
            "--fuse", multiple=True, metavar="RUN", help="For adapterfusion; twice or more."
        ),
        click.option("--base-bits", type=bits, help="Keep the base's linear weights in so many."),
        click.option("--optimizer", type=optimizers, help="adamw, unless given."),
        click.option("--head-weight", type=float, help="Of the sufficiency head; 0: no head."),
        click.option(
            "--replay", type=float, help="Rehearsed replies of the base for each row, e.g. 0.2."
        ),
        click.option("--kl", type=float, help="Learn those as divergence from the base."),
        click.option(
            "--refusal-aware",
            type=float,
            help="0 to 1: teach less of what the untrained model cannot answer.",
        ),
        click.option(
            "--abstain-reward",
            type=float,
            help="0 to 1: what declining earns where there is an answer, which earns 1.",
        ),
        click.option(
            "--row-weights", is_flag=True, default=None, help="Count rows by their weight."
        ),
        click.option("--average", type=float, help="Share of what training changed that is kept."),
        click.option(
            "--forgetting-limit", type=float, help="Fail where plain text costs more, e.g. 0.1."
        ),
        click.option("--seed", type=int),
        click.option(
            "--offload",
            type=click.Choice(["cpu", "disk"]),
            help="Where frozen blocks lie until they run (GPU).",
        ),
        click.option(
            "--shard", is_flag=True, default=None, help="Split frozen weights (torchrun, FSDP)."
        ),
        click.option("--lean", is_flag=True, default=None, help="Less memory, slower (CPU)."),
    )


def settings_of(config: Path | None, **given: Any) -> Any:
    """The settings of ``--config``, or the defaults, but for those that are given."""
    from curate import typed_yaml
    from train.settings import TrainSettings, changed

    given["fuse"] = list(given.get("fuse", ())) or None
    base = typed_yaml.load(config, TrainSettings) if config is not None else TrainSettings()
    return changed(base, {k: v for k, v in given.items() if v is not None})
