"""`abstain drift` and `abstain recalibrate`: what people audited, held against the promise."""

import sys
from pathlib import Path

import click

from abstain.goal_options import goal_options
from abstain.queue_command import at_option, opened
from curate import console
from curate.console import json_option

_PATH = click.Path(path_type=Path)
_policy_option = click.option(
    "--policy", type=_PATH, help="That the service had; answer or decline without."
)


@click.command()
@click.argument("run", type=_PATH)
@at_option
@_policy_option
@json_option
def drift(run: Path, at: str, policy: Path | None, as_json: bool) -> None:
    """Tell whether RUN's promise still holds, by the questions that people audited.

    The risk's bounds hold at all times at once, so look as often as you like. Exit code 1 where the
    guarantee is refuted.
    """
    from abstain import policy as policies
    from abstain.recalibrate import watched
    from abstain.router import PLAIN

    rules = policies.read(policy) if policy is not None else PLAIN
    found = watched(run, rules, opened(at).items("answered"))
    text = (
        f"{found.state}: of {found.audited:,} audited questions {found.answered:,} are answered, "
        f"{found.wrong:,} wrongly; the risk lies between {found.low:.3f} and {found.high:.3f}"
    )
    if found.target is not None:
        text += f", and at most {found.target:g} was promised"
    if found.tighten_to is not None:
        text += f"\na threshold of {found.tighten_to:.4f} would keep it"
    if found.shift is not None:
        changed = "have changed" if found.shifted else "are as they were"
        text += f"\nquestions {changed} (stability index {found.shift:.2f})"
    console.show(found.to_json(), text, as_json)
    if found.state == "refuted":
        sys.exit(1)


@click.command()
@click.argument("run", type=_PATH)
@at_option
@_policy_option
@goal_options
@click.option("--again", is_flag=True, help="Certify once more on audits already used; recorded.")
@json_option
def recalibrate(
    run: Path,
    at: str,
    policy: Path | None,
    target_risk: float,
    delta: float,
    again: bool,
    as_json: bool,
) -> None:
    """Certify a new threshold of RUN on what people audited, and store it.

    The confidence stays; the threshold is the laxest that the audits vouch for. A running server
    goes on with the old one until it is started again.
    """
    from abstain import policy as policies
    from abstain.recalibrate import recalibrate as certify_again
    from abstain.router import PLAIN, Threshold
    from abstain.threshold import Goal

    rules = policies.read(policy) if policy is not None else PLAIN
    items = opened(at).items("answered")
    found = certify_again(run, rules, items, Goal(target_risk, delta), again)
    promise = Threshold(found.threshold, found.guarantee).promise()
    before = "none" if found.before is None else f"{found.before:.4f}"
    text = f"threshold {found.threshold:.4f} (before: {before}): {promise}"
    console.show(found.to_json(), text, as_json)
