"""The `train` command. Each subcommand imports what it needs, so that `--help` is instant."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.methods import METHODS

_PATH = click.Path(path_type=Path)
_METHODS = (
    "\b\nMethods, and the learning rate of each unless one is given; those with a * have the\n"
    "dropout that MC dropout needs:\n"
) + "\n".join(
    f"{'*' if method.dropout else ' '} {name:14}{method.rate:<8g}{method.trains}"
    for name, method in METHODS.items()
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="grounded-abstain")
def cli() -> None:
    """Fine-tune a model to abstain when the context does not hold the answer.

    \b
    Look before you leap, then train on the CPU:
      train preflight --data out/data
      train run --data out/data --out out/run
    """


def settings_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that `run` and `preflight` share; what is not given comes from --config."""
    for option in (
        click.option("--config", type=_PATH, help="YAML file of settings (see `train settings`)."),
        click.option("--max-tokens", type=int, help="Tokens a row may have, prompt and answer."),
        click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded)."),
        click.option("--data", type=_PATH, required=True, help="Folder of `curate build`."),
    ):
        command = option(command)
    return command


def _settings(config: Path | None, **given: Any) -> Any:
    from curate import typed_yaml
    from train.settings import TrainSettings, changed

    base = typed_yaml.load(config, TrainSettings) if config is not None else TrainSettings()
    return changed(base, {k: v for k, v in given.items() if v is not None})


@cli.command()
@settings_options
@json_option
def preflight(
    data: Path, model: str | None, max_tokens: int | None, config: Path | None, as_json: bool
) -> None:
    """Count what a run would read and print one exact prompt; exit code 1 if it would fail."""
    from train import preflight as checks

    result = checks.preflight(data, _settings(config, model=model, max_tokens=max_tokens))
    console.show(result.to_json(), result.text(), as_json)
    if result.errors:
        raise SystemExit(1)


@cli.command(epilog=_METHODS)
@click.option("--data", type=_PATH, help="Folder of `curate build`: its largest pack, its time.")
@click.option("--model", help="Hub id, local folder, or smollm2-135m (embedded).")
@click.option("--config", type=_PATH, help="YAML file of settings (see `train settings`).")
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--rank", type=int, help="Rank of LoRA and its kin.")
@click.option("--tokens", type=int, help="Without --data: tokens that the rows of a pack share.")
@click.option("--rows", type=int, help="Without --data: rows of a pack.")
@click.option("--lean", is_flag=True, default=None, help="Give freed memory back at once.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True)
@click.option("--gpu-memory", type=float, metavar="GIB", help="Of each GPU: what would fit?")
@click.option("--time/--no-time", "timed", default=True, help="Measure the time, some seconds.")
@click.option("--decide", is_flag=True, help="Train at all? Measured: as long as two runs take.")
@click.option("--goal", metavar="METRIC[=VALUE]", default="f1", help="What decides; with --decide.")
@click.option("--out", type=_PATH, help="With --decide: folder for what is measured.")
@json_option
def plan(
    data: Path | None,
    config: Path | None,
    tokens: int | None,
    rows: int | None,
    gpus: int,
    gpu_memory: float | None,
    timed: bool,
    decide: bool,
    goal: str,
    out: Path | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Say what a run will need: memory, time, storage, network. No weights are loaded.

    With --decide, whether to prompt, retrieve, fine-tune or collect more data: the untrained model
    is asked the validation rows, and the settings are trained on 10, 25, 50 and 100 % of the rows.
    Killed and started again, it goes on.

    \b
      train plan --data out/data
      train plan --model some/7b-model --tokens 2000 --gpu-memory 24 --gpus 4
      train plan --data out/data --decide --goal f1=0.7 --out out/decision
    """
    if decide:
        _decide(data, out, goal, _settings(config, **given), as_json)
        return
    from train import plan as planning
    from train.estimate import Shape

    settings = _settings(config, **given)
    shape = Shape(prefix=tokens or Shape.prefix, rows=rows or settings.max_rows)
    found = planning.plan(settings, data, shape, gpus, gpu_memory, timed)
    console.show(found.to_json(), found.text(), as_json)


def _decide(data: Path | None, out: Path | None, goal: str, settings: Any, as_json: bool) -> None:
    from curate.errors import UserError
    from curate.files import writable_folder
    from train.decide import measure
    from train.verdict import weigh

    if data is None or out is None:
        raise UserError("--decide measures: give --data and a folder for what it finds, --out")
    metric, sign, value = goal.partition("=")
    try:
        wanted = float(value) if sign else None
    except ValueError as error:
        raise UserError(f"--goal {goal}: {value} is no number") from error
    if wanted is not None and not 0 < wanted <= 1:
        raise UserError(f"--goal {goal}: goals are above 0 and at most 1, e.g. {metric}=0.7")
    writable_folder(out)
    verdict = weigh(measure(data, out, settings, metric, wanted))
    console.show(verdict.to_json(), verdict.text(), as_json)


@cli.command(epilog=_METHODS)
@settings_options
@click.option("--out", type=_PATH, required=True, help="Folder for the run.")
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

    settings = _settings(config, fuse=list(fuse) or None, **given)
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


@cli.command(epilog=_METHODS)
@settings_options
@click.option("--out", type=_PATH, required=True, help="Folder for the study and its runs.")
@click.option("--method", type=click.Choice(list(METHODS)), help="What is trained: see below.")
@click.option("--epochs", type=float, help="Passes over the train split, may be fractional.")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=VALUES",
    help="A setting and its LOW..HIGH or A,B,C; several times. None: what usually matters.",
)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True, help="In all.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Start none later.")
@click.option(
    "--sampler",
    type=click.Choice(["tpe", "random", "grid"]),
    default="tpe",
    show_default=True,
    help="Bayesian (tree of Parzen estimators), at random, or all of a grid.",
)
@click.option(
    "--metric",
    default="coverage_at_risk_10",
    show_default=True,
    help="Of `abstain evaluate`, or `loss`; on the validation split.",
)
@json_option
def search(
    data: Path,
    out: Path,
    config: Path | None,
    vary: tuple[str, ...],
    trials: int,
    minutes: float | None,
    sampler: str,
    metric: str,
    as_json: bool,
    **given: Any,
) -> None:
    """Look for settings that beat the defaults; judge them on the validation split.

    Trials whose loss is above the median of others are stopped early. Killed and started again, it
    goes on; with more --trials too. In the end the best settings are compared with the defaults on
    the test split, and written to best.yaml for `train run --config`.

    \b
      train search --data out/data --out out/search --trials 30
      train search --data out/data --out out/search --sampler grid \\
        --vary rank=8,16 --vary learning_rate=0.0002,0.0004
    """
    from train import search as searching
    from train.space import space_of

    settings = _settings(config, **given)
    plan = searching.Search(data, out, settings, space_of(vary, settings), metric, sampler)
    found = searching.search(plan, trials, minutes)
    console.show(found.to_json(), found.text(), as_json)


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, required=True, help="Folder of `curate build`.")
@click.option("--out", type=_PATH, required=True, help="Folder for the new run.")
@click.option("--beta", default=0.1, show_default=True, help="Larger: stays nearer to RUN.")
@click.option("--learning-rate", default=5e-6, show_default=True)
@click.option("--epochs", default=1.0, show_default=True)
@json_option
def prefer(
    run: Path,
    data: Path,
    out: Path,
    beta: float,
    learning_rate: float,
    epochs: float,
    as_json: bool,
) -> None:
    """Train RUN on: right replies preferred to wrong ones (DPO, by TRL).

    Where the context suffices, the answer to the abstention phrase; where it does not, the phrase
    to the answer of the row's parent, or to what RUN answers. Calibrate the new run afterwards.
    """
    from train import prefer as preferring

    settings = preferring.PreferSettings(beta, learning_rate, epochs)
    found = preferring.prefer(run, data, out, settings)
    text = (
        f"{found['pairs']} pairs in {found['seconds'] / 60:.1f} minutes, loss "
        f"{found['loss'][0]:.3f} → {found['loss'][-1]:.3f}\n"
    )
    text += "".join(f"{count} rows left out: {why}\n" for why, count in found["dropped"].items())
    text += f"written to {out}; next: abstain calibrate {out} --data {data}"
    console.show(found, text, as_json)


@cli.command()
@click.argument("run", type=_PATH)
@click.option("--data", type=_PATH, required=True, help="Folder of `curate build`: its prompts.")
@click.option("--out", type=_PATH, required=True, help="Folder, or a file for GGUF.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["merged", "bfloat16", "gguf-f32", "gguf-f16", "gguf-q8_0"]),
    default="merged",
    show_default=True,
    help="One plain model, the same in half precision, or llama.cpp's format.",
)
@click.option("--prompts", type=click.IntRange(1), default=48, show_default=True)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.02,
    show_default=True,
    help="Share of prompts on which it may decide otherwise.",
)
@json_option
def export(
    run: Path,
    data: Path,
    out: Path,
    kind: Any,
    prompts: int,
    tolerance: float,
    as_json: bool,
) -> None:
    """Write RUN as others serve it; done only where it answers and declines as RUN does.

    Both are asked the same validation prompts. What the comparison finds is written beside the
    export. Neither the sufficiency head nor a threshold goes along: calibrate the server that has
    it, after `abstain connect`.
    """
    from train import export as exporting

    found = exporting.export(run, out, kind, data, prompts, tolerance)
    console.show(found.to_json(), f"{found.text()}\nwritten to {out}", as_json)


@cli.command()
@click.argument("model")
@click.option("--out", type=_PATH, required=True, help="Folder for the pruned model.")
@click.option(
    "--by",
    type=click.Choice(["magnitude", "wanda"]),
    default="wanda",
    show_default=True,
    help="What tells which weights matter least.",
)
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.5,
    show_default=True,
    help="Share of weights that become zero.",
)
@click.option("--data", type=_PATH, help="Folder of `curate build`: prompts for wanda.")
@json_option
def prune(
    model: str, out: Path, by: str, sparsity: float, data: Path | None, as_json: bool
) -> None:
    """Write a copy of MODEL with a share of its weights zero, to be fine-tuned then.

    \b
      train prune smollm2-135m --out out/pruned --sparsity 0.4 --data out/data
      train run --data out/data --model out/pruned --out out/run
    """
    from train import prune as pruning

    found = pruning.prune(model, out, "wanda" if by == "wanda" else "magnitude", sparsity, data)
    before, after = found.bits_a_byte
    text = (
        f"{found.zeros / found.weights:.1%} of {found.weights / 1e6:,.1f} M weights are zero\n"
        f"plain text: {before:.3f} bits a byte before, {after:.3f} after\n"
        f"written to {out}; next: train run --model {out}"
    )
    console.show(found.to_json(), text, as_json)


@cli.command()
@click.argument("run", type=_PATH)
@json_option
def forgetting(run: Path, as_json: bool) -> None:
    """Measure what RUN has unlearnt: plain text, instructions, common knowledge, over-refusal."""
    from train import forgetting as measuring

    found = measuring.forgetting(run)
    console.show(found.to_json(), found.text(), as_json)


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


def main() -> None:
    """Entry point of the console command."""
    console.main(cli)


if __name__ == "__main__":  # `torchrun -m train.cli`
    main()
