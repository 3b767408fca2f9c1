"""The options that switch signals on, shared by the commands that gather them."""

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from abstain.evidence import Evidence


def signal_options(command: Any) -> Any:
    """Options that switch signals on, and say how the dear ones are computed."""
    options = (
        click.option(
            "--signals",
            default="free",
            show_default=True,
            help="free (no cost beyond the answer), all, or names separated by commas; "
            "`abstain signals` lists them.",
        ),
        click.option(
            "--samples",
            type=click.IntRange(1),
            default=10,
            show_default=True,
            help="Answers drawn at random, for signals that need them.",
        ),
        click.option(
            "--mc-samples",
            type=click.IntRange(1),
            default=20,
            show_default=True,
            help="MC dropout's masks (T), for signals that need them.",
        ),
        click.option(
            "--mc-scope",
            type=click.Choice(["full", "suffix", "top-k"]),
            default="top-k",
            show_default=True,
            help="Where masks lie: everywhere (T passes); on question, answer and phrase; or on "
            "what is scored, in the highest blocks.",
        ),
        click.option(
            "--mc-top-k",
            type=click.IntRange(1),
            default=4,
            show_default=True,
            help="Blocks of scope top-k.",
        ),
        click.option(
            "--mc-mask",
            type=click.Choice(["shared", "token"]),
            default="shared",
            show_default=True,
            help="One mask for all tokens of a sample, or one for each.",
        ),
    )

    for option in reversed(options):
        command = option(command)
    return command


def evidence_of(values: dict[str, Any]) -> "tuple[tuple[str, ...], Evidence]":
    """The signals that are switched on, and the evidence that they need."""
    from abstain.evidence import DropoutSettings, Evidence
    from abstain.laplace import BLOCKS
    from abstain.signals import chosen, needed

    dropout = DropoutSettings(
        values["mc_samples"], values["mc_scope"], values["mc_top_k"], values["mc_mask"]
    )
    names = chosen(values["signals"])
    most = Evidence(True, values["samples"], dropout=dropout, laplace=BLOCKS)
    return names, needed(names, most)


def wants_all(values: dict[str, Any]) -> bool:
    """Whether every signal is asked for: then what a model cannot give is left out, not refused."""
    return "all" in map(str.strip, values["signals"].split(","))
