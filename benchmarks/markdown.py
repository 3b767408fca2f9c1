"""Markdown for the measured pages: tables, and values with their intervals."""

from collections.abc import Sequence
from typing import Any


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; every cell is text."""
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def interval(metric: dict[str, Any] | None) -> str:
    """``0.123 [0.1, 0.2]``; a dash where there is no value."""
    if metric is None or metric["value"] is None:
        return "–"
    value = f"{metric['value']:.3f}"
    return (
        value if metric["low"] is None else f"{value} [{metric['low']:.3f}, {metric['high']:.3f}]"
    )
