"""What the three commands share: how they print errors and results, and their exit codes."""

import json
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click

from curate.errors import UserError


def main(group: click.Group, arguments: Sequence[str] | None = None) -> None:
    """Run a command line; 0 only on success, 1 for a user's problem, 2 for wrong usage."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # Libraries that warn about what a user cannot change drown what the user should read.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    stdout = sys.stdout
    try:
        group.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; the same command goes on from here", err=True)
        sys.exit(130)
    except BrokenPipeError:  # `curate show … | head` closes our output early, and that is fine
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except SystemExit:
        if sys.stdout is stdout:  # click wraps it where it is the first to meet a closed pipe
            raise


def show(value: Any, text: str, as_json: bool) -> None:
    """Print a result: for a program with ``--json``, else for a person."""
    click.echo(json.dumps(value, ensure_ascii=False) if as_json else text)


def say(note: str) -> None:
    """Tell the user above progress bars; stdout is for the result, which may be JSON."""
    from tqdm import tqdm

    tqdm.write(note, file=sys.stderr)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program.")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A text table with aligned columns; numbers to the right."""
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    ]
    return "\n".join(lines)


def listed(counts: Mapping[str, int]) -> str:
    """Names with their counts on one line."""
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def interval(found: Mapping[str, Any] | None) -> str:
    """``0.123 [0.1, 0.2]`` of a value with its bounds; a dash where there is none."""
    if found is None or found["value"] is None:
        return "–"
    value = f"{found['value']:.3f}"
    return value if found["low"] is None else f"{value} [{found['low']:.3f}, {found['high']:.3f}]"


seed_option = click.option("--seed", default=13, show_default=True, help="Draws other rows.")
share_option = click.option(
    "--share",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of insufficient rows aimed at.",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Processes; the result is the same with any number.",
)
