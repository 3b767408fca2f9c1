"""The `abstain` command. Each subcommand imports what it needs, so that `--help` is instant."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from abstain import audits_command as auditing
from abstain.goal_options import goal_options
from abstain.queue_command import queue
from abstain.serve import command as serving
from abstain.signal_options import evidence_of, signal_options, wants_all
from curate import console
from curate.console import json_option

if TYPE_CHECKING:
    from abstain.answer import Answering
    from abstain.compare import Block

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

    \b
    And into service:
      abstain serve out/run --policy policy.yaml
      abstain queue list
      abstain drift out/run
    """


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, required=True, help="Data-set folder of `curate build`.")
@goal_options
@click.option(
    "--procedure",
    type=click.Choice(["fixed-sequence", "holm", "sgr", "crc", "none"]),
    default="fixed-sequence",
    show_default=True,
    help="How the promise is certified. crc promises another thing: on average, at most "
    "--target-risk of all questions are answered wrongly. none: no guarantee.",
)
@click.option(
    "--pooled",
    is_flag=True,
    help="Count every question, not one a context; assumes that they are independent.",
)
@click.option(
    "--aim",
    type=click.Choice(["cost", "coverage", "f1"]),
    default="cost",
    show_default=True,
    help="What the threshold is best for where there is no guarantee.",
)
@click.option("--cost-wrong", type=click.FloatRange(0), default=1.0, show_default=True)
@click.option("--cost-abstain", type=click.FloatRange(0), default=0.5, show_default=True)
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of questions to answer, with --aim coverage.",
)
@click.option(
    "--correct",
    type=click.Choice(["f1", "em"]),
    default="f1",
    show_default=True,
    help="Right means an F1 of at least 0.5, or an exact match.",
)
@click.option(
    "--policy",
    type=_PATH,
    help="Certify this routing policy as a whole, with what it retrieves and whom it asks.",
)
@signal_options
@click.option("--seed", default=13, show_default=True, help="Draws one question a context.")
@click.option("--again", is_flag=True, help="Certify once more on rows already used; recorded.")
@json_option
def calibrate(run: Path, data: Path, again: bool, as_json: bool, **options: Any) -> None:
    """Fit the confidence of RUN on validation and certify a threshold on calibration.

    The threshold promises: of the questions answered, at most --target-risk are wrong, with
    probability 1 − --delta. Where the rows do not suffice for that, the command says how many
    would, and sets the threshold that suits --aim best, marked "no guarantee".

    Confidence is a combination of the free signals switched on, unless a single one, or signals
    that cost passes, predict validation surely and noticeably better; later commands gather only
    what the choice needs.
    """
    from abstain import policy as policies
    from abstain.calibrate import Request, describe
    from abstain.calibrate import calibrate as run_calibration
    from abstain.calibration import RIGHT_F1
    from abstain.load import load
    from abstain.router import PLAIN
    from abstain.threshold import Goal
    from curate.errors import UserError

    if not (run / "abstain.json").exists():
        raise UserError(f"{run}: has no abstain.json; it is not a run of `train run`")
    names, evidence = evidence_of(options)
    certify = options["procedure"] != "none"
    goal = Goal(options["target_risk"], options["delta"])
    if certify:
        goal = replace(goal, procedure=options["procedure"])
    request = Request(
        goal,
        certify,
        options["pooled"],
        options["aim"],
        options["cost_wrong"],
        options["cost_abstain"],
        options["coverage"],
        RIGHT_F1 if options["correct"] == "f1" else 1.0,
        policies.read(options["policy"]) if options["policy"] is not None else PLAIN,
        names,
        evidence,
        options["seed"],
    )
    answerer = load(str(run), calibrated=False)
    if wants_all(options):
        evidence = answerer.possible(evidence, fitted=False)
    result = run_calibration(run, data, answerer, replace(request, evidence=evidence), again)
    console.show(result.to_json(), describe(result), as_json)


@cli.command()
@click.argument("address")
@click.option("--out", type=_PATH, required=True, help="Folder that is to stand for it.")
@click.option("--model-name", default="", help="Of the model to ask for.")
@click.option("--abstention-phrase", help="What it is told to say instead of an answer.")
def connect(address: str, out: Path, model_name: str, abstention_phrase: str | None) -> None:
    """Let a folder stand for the model behind an ADDRESS: then it is calibrated and served.

    Any OpenAI-compatible server with log-probabilities will do (llama.cpp, vLLM). Its weights are
    its own: a guarantee holds as long as the same model answers there.

    \b
      abstain connect http://127.0.0.1:8080/v1 --out out/remote
      abstain calibrate out/remote --data out/data
    """
    from abstain import load
    from curate.contract import Contract

    contract = Contract(abstention_phrase) if abstention_phrase else Contract()
    load.connect(address, model_name, contract, out)
    click.echo(f"{out} stands for {address}; next: abstain calibrate {out} --data DIR")


@cli.command()
@json_option
def signals(as_json: bool) -> None:
    """List the signals: what each is, and what it costs beyond the answer itself."""
    from abstain.signals import SIGNALS

    costs = {
        "p_true": "1 pass",
        "samples": "--samples answers",
        "dropout": "--mc-samples passes, of some blocks",
        "laplace": "a small backward pass",
    }
    found = [
        {
            "name": name,
            "cost": costs.get(signal.evidence, "free"),
            "what": (signal.value.__doc__ or "").splitlines()[0],
        }
        for name, signal in SIGNALS.items()
    ]
    lines = [tuple(entry.values()) for entry in found]
    console.show(found, console.table(("signal", "cost", "what it is"), lines), as_json)


@cli.command()
@click.argument("run")
@click.option(
    "--data", type=_PATH, required=True, help="Data-set folder (its test split), or a file of rows."
)
@click.option("--out", type=_PATH, required=True, help="Folder for metrics, predictions, report.")
@click.option("--abstention-phrase", help="What an untrained model is told to say instead.")
@click.option(
    "--shots",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Worked examples in an untrained model's prompt, drawn from --data's train split.",
)
@click.option("--model-name", help="Of the model to ask for, where RUN is an address.")
@signal_options
@json_option
def evaluate(run: str, data: Path, out: Path, as_json: bool, **options: Any) -> None:
    """Measure RUN on the test split: metrics.json, predictions.parquet, report.html.

    RUN is a folder of `train run`, or a model (hub id, local folder, smollm2-135m) to see what an
    untrained one does with the same prompt, or the address of an OpenAI-compatible server
    (http://…/v1; its key in OPENAI_API_KEY). --signals adds signals to the table of what each is
    worth and costs; what the run's own confidence needs is gathered in any case.
    """
    from abstain import evaluate as evaluation

    names, evidence = evidence_of(options)
    answerer = _answerer(run, data, options)
    if wants_all(options):
        evidence = answerer.possible(evidence)
    metrics = evaluation.evaluate(run, answerer, data, out, names, evidence)
    blocks = [name for name in ("raw", "routed") if name in metrics]
    lines = [(key, *(console.interval(metrics[b][key]) for b in blocks)) for key in metrics["raw"]]
    text = f"{console.table(('metric', *blocks), lines)}\n\nreport: {out / 'report.html'}"
    console.show(metrics, text, as_json)


def _answerer(run: str, data: Path, options: dict[str, Any]) -> "Answering":
    """A run, an untrained model, or a server, with the prompt that the options ask for."""
    from abstain.load import load
    from abstain.shots import draw_shots
    from curate.contract import Contract
    from curate.errors import UserError
    from curate.record import read_fold

    phrase, shots = options["abstention_phrase"], options["shots"]
    contract = None
    if phrase is not None or shots:
        contract = Contract(phrase) if phrase is not None else Contract()
        if shots:
            if not data.is_dir():
                raise UserError(
                    "--shots draws from a train split: give a data-set folder as --data"
                )
            drawn = draw_shots(read_fold(data, "train"), shots, contract, seed=13)
            contract = replace(contract, shots=drawn)
    return load(run, contract, model_name=options["model_name"] or "")


@cli.command()
@click.argument("evaluations", type=_PATH, nargs=-1, required=True)
@click.option(
    "--block",
    type=click.Choice(["raw", "routed"]),
    default="routed",
    show_default=True,
    help="What the models said, or what came of it behind the threshold.",
)
@click.option("--report", type=_PATH, help="Write a page with pictures here, e.g. compare.html.")
@json_option
def compare(
    evaluations: tuple[Path, ...], block: "Block", report: Path | None, as_json: bool
) -> None:
    """Compare two or more EVALUATIONS (folders of `abstain evaluate`) on the rows they share.

    Differences are from the first one, with 95 % intervals of a paired bootstrap: both runs on the
    same draws of documents. An interval without 0 is marked with an asterisk.
    """
    from abstain import compare as comparing
    from curate.errors import UserError
    from curate.files import write_text

    if len(set(evaluations)) < max(2, len(evaluations)):
        raise UserError("give at least two different folders of `abstain evaluate`")
    comparison = comparing.compare(evaluations, block)
    found = comparison.found
    if report is not None:
        write_text(report, comparison.render())
    first, *others = found["metrics"]
    lines = []
    for key, value in found["metrics"][first].items():
        cells = [console.interval(value)]
        for other in others:
            cells += [console.interval(found["metrics"][other][key]), _change(found, other, key)]
        lines.append((key, *cells))
    header = ["metric", first]
    for other in others:
        header += [other, "difference"]
    console.show(found, console.table(header, lines), as_json)


def _change(found: dict[str, Any], other: str, key: str) -> str:
    change = found["differences"][other][key]
    low, high = change["low"], change["high"]
    sure = low is not None and (low > 0 or high < 0)
    return console.interval(change) + (" *" if sure else "")


@cli.command()
@click.argument("run")
@click.argument("questions", metavar="QUESTION...", nargs=-1, required=True)
@click.option(
    "--context", required=True, help="File that holds the context; - reads standard input."
)
@click.option("--policy", type=_PATH, help="What is done with what is not answered: a YAML file.")
@click.option(
    "--log", type=_PATH, help="JSONL file for the decisions [default: RUN/decisions.jsonl]."
)
@json_option
def ask(
    run: str,
    questions: tuple[str, ...],
    context: str,
    policy: Path | None,
    log: Path | None,
    as_json: bool,
) -> None:
    """Answer each QUESTION from a context, or decline; with confidence, threshold and reason why.

    Several questions share the context's computation. Every decision is logged with its signals,
    threshold and rule. The exit code is 0 for an answer and for a decision to decline: both are
    results.
    """
    from abstain import ask as asking
    from abstain import policy as policies
    from abstain.cascade import assemble
    from abstain.load import load
    from abstain.router import PLAIN
    from curate.files import decode, read_text

    piped = context == "-"
    text = decode(sys.stdin.buffer.read(), "standard input") if piped else read_text(Path(context))
    if log is None and (Path(run) / "abstain.json").exists():
        log = Path(run) / "decisions.jsonl"
    cascade = assemble(load(run), policies.read(policy) if policy is not None else PLAIN)
    found = asking.ask(cascade, text, questions, log)
    blocks = []
    for one in found:
        block = f"{one['answer']}\n  {one['action']}: {one['why']}"
        if one["action"] != "answer" and one["predicted_reason"] is not None:
            block += f"\n  likely reason: {one['predicted_reason'].replace('_', ' ')}"
        blocks.append(block if len(found) == 1 else f"{one['question']}\n  {block}")
    console.show(found, "\n\n".join(blocks), as_json)


@cli.command()
@click.argument("policy", type=_PATH)
@click.option("--explain", is_flag=True, help="Tell the whole policy in words, rule by rule.")
@click.option("--run", type=_PATH, help="Tell whether this run's guarantee covers the policy.")
@json_option
def route(policy: Path, explain: bool, run: Path | None, as_json: bool) -> None:
    """Check a POLICY: what is done with each question, by which rule.

    A policy is a YAML file. Its rules are tried from the top; the first that holds decides. Answers
    always have to pass the run's threshold. A guarantee covers one policy with the retriever and
    the second model that it asks, certified as a whole: `abstain calibrate RUN --policy POLICY`.

    \b
      rules:
        - {action: answer}                       # what passes the threshold
        - {action: clarify, when: {reason: [underspecified]}}
        - {action: retrieve, when: {reason: [no_context, evidence_missing]}}
        - {action: escalate, when: {topic: [refunds]}}
        - {action: decline}
      topics: {refunds: [refund, money back]}
      retriever: {kind: bm25, folder: documents}
    """
    from abstain import policy as policies
    from abstain import retrieve
    from abstain.cascade import named
    from abstain.run import read_run_file

    found = policies.read(policy)
    value: dict[str, Any] = {"policy": found.model_dump(mode="json"), "explained": found.explain()}
    text = value["explained"] if explain else f"{policy}: {len(found.rules)} rules, no mistakes"
    if run is not None:
        routing = named(found, retrieve.make(found.retriever))
        calibration = read_run_file(run).calibration
        promise = calibration.threshold_under(routing).promise() if calibration else "no guarantee"
        value["guarantee"] = promise
        text += f"\n{run}: {promise}"
    console.show(value, text, as_json)


cli.add_command(auditing.drift)
cli.add_command(auditing.recalibrate)
cli.add_command(serving.serve)
cli.add_command(serving.keys)
cli.add_command(queue)


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)
