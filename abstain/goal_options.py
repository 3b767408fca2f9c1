"""Options of a promise, for the commands that certify one."""

from collections.abc import Callable
from typing import Any

import click

_OPTIONS = (
    click.option(
        "--target-risk",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.10,
        show_default=True,
        help="Largest share of wrong answers among the questions answered (α).",
    ),
    click.option(
        "--delta",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        default=0.05,
        show_default=True,
        help="Probability that the promise fails, over the draw of the rows that certify (δ).",
    ),
)


def goal_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """α and δ."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
