"""The `abstain` command. Each subcommand imports what it needs, so that `--help` is instant."""

import sys
from pathlib import Path

import click

from curate import console
from curate.console import json_option

_PATH = click.Path(path_type=Path)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grounded-abstain")
def cli() -> None:
    """Answer when the context suffices, and say so when it does not.

    \b
    From a trained run to an answer:
      abstain calibrate out/run --data out/data --target-risk 0.10 --delta 0.05
      abstain evaluate out/run --data out/data --out out/evaluation
      abstain ask out/run --context policy.txt "How long do refunds take?"
    """


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, required=True, help="Data-set folder of `curate build`.")
@click.option(
    "--target-risk",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.10,
    show_default=True,
    help="Largest share of wrong answers among the questions answered (α).",
)
@click.option(
    "--delta",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.05,
    show_default=True,
    help="Probability that the promise fails, over the draw of calibration rows (δ).",
)
@click.option("--cost-wrong", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option(
    "--cost-abstain",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Cost of not answering; used with --cost-wrong where no guarantee is feasible.",
)
@click.option("--seed", default=13, show_default=True, help="Draws one question a context.")
@click.option("--again", is_flag=True, help="Certify once more on rows already used; recorded.")
@json_option
def calibrate(
    run: Path,
    data: Path,
    target_risk: float,
    delta: float,
    cost_wrong: float,
    cost_abstain: float,
    seed: int,
    again: bool,
    as_json: bool,
) -> None:
    """Fit the confidence of RUN on validation and certify a threshold on calibration.

    The threshold promises: of the questions answered, at most --target-risk are wrong, with
    probability 1 − --delta. Where the rows do not suffice for that, the command says how many
    would, and sets the threshold with the least cost, marked "no guarantee".
    """
    from abstain.answerer import load_answerer
    from abstain.calibrate import Target, describe
    from abstain.calibrate import calibrate as run_calibration
    from curate.errors import UserError

    if not (run / "abstain.json").exists():
        raise UserError(f"{run}: has no abstain.json; it is not a run of `train run`")
    target = Target(target_risk, delta, cost_wrong, cost_abstain, seed)
    result = run_calibration(run, data, load_answerer(str(run)), target, again)
    console.show(result.to_json(), describe(result), as_json)


@cli.command()
@click.argument("run")
@click.option(
    "--data", type=_PATH, required=True, help="Data-set folder (its test split), or a file of rows."
)
@click.option("--out", type=_PATH, required=True, help="Folder for metrics, predictions, report.")
@json_option
def evaluate(run: str, data: Path, out: Path, as_json: bool) -> None:
    """Measure RUN on the test split: metrics.json, predictions.parquet, report.html.

    RUN is a folder of `train run`, or a model (hub id, local folder, smollm2-135m) to see what an
    untrained one does with the same prompt.
    """
    from abstain import evaluate as evaluation
    from abstain.answerer import load_answerer

    metrics = evaluation.evaluate(run, load_answerer(run), data, out)
    blocks = [name for name in ("raw", "routed") if name in metrics]
    lines = [(key, *(_interval(metrics[b][key]) for b in blocks)) for key in metrics["raw"]]
    text = f"{console.table(('metric', *blocks), lines)}\n\nreport: {out / 'report.html'}"
    console.show(metrics, text, as_json)


def _interval(metric: dict[str, float | None]) -> str:
    value, low, high = metric["value"], metric["low"], metric["high"]
    if value is None:
        return "–"
    return f"{value:.3f}" + ("" if low is None else f"  [{low:.3f}, {high:.3f}]")


@cli.command()
@click.argument("run")
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@click.option(
    "--context", required=True, help="File that holds the context; - reads standard input."
)
@click.option(
    "--log", type=_PATH, help="JSONL file for the decisions [default: RUN/decisions.jsonl]."
)
@json_option
def ask(
    run: str, questions: tuple[str, ...], context: str, log: Path | None, as_json: bool
) -> None:
    """Answer each QUESTION from a context, or decline; with confidence, threshold and reason why.

    Several questions share the context's computation. Every decision is logged with its signals,
    threshold and rule. The exit code is 0 for an answer and for a decision to decline: both are
    results.
    """
    from abstain import ask as asking
    from abstain.answerer import load_answerer
    from curate.files import decode, read_text

    piped = context == "-"
    text = decode(sys.stdin.buffer.read(), "standard input") if piped else read_text(Path(context))
    answerer = load_answerer(run)
    if log is None and answerer.loaded.run is not None:
        log = answerer.loaded.run / "decisions.jsonl"
    responses = asking.ask(answerer, text, questions, log)
    blocks = []
    for response in responses:
        decision = response.decision
        block = f"{response.answer}\n  {decision.action}: {decision.why}"
        blocks.append(block if len(responses) == 1 else f"{response.question}\n  {block}")
    console.show([r.to_json() for r in responses], "\n\n".join(blocks), as_json)


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)
