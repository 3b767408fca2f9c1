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


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that `run`, `search` and `preflight` share; what is not given comes from --config."""
    for option in (
        click.option("--config", type=PATH, help="YAML file of settings (see `train settings`)."),
        click.option("--max-tokens", type=int, help="Tokens a row may have, prompt and answer."),
        click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded)."),
        click.option("--data", type=PATH, required=True, help="Folder of `curate build`."),
    ):
        command = option(command)
    return command


def settings_of(config: Path | None, **given: Any) -> Any:
    """The settings of ``--config``, or the defaults, but for those that are given."""
    from curate import typed_yaml
    from train.settings import TrainSettings, changed

    base = typed_yaml.load(config, TrainSettings) if config is not None else TrainSettings()
    return changed(base, {k: v for k, v in given.items() if v is not None})
