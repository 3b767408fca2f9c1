"""What is done to a model before it is trained, and to a run afterwards."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option
from train.options import PATH

_ABOVE_0 = click.FloatRange(0, min_open=True)


@click.command()
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, required=True, help="Folder of `curate build`.")
@click.option("--out", type=PATH, required=True, help="Folder for the new run.")
@click.option(
    "--beta", type=_ABOVE_0, default=0.1, show_default=True, help="Larger: stays nearer to RUN."
)
@click.option("--learning-rate", type=_ABOVE_0, default=5e-6, show_default=True)
@click.option("--epochs", type=_ABOVE_0, default=1.0, show_default=True)
@click.option("--fresh", is_flag=True, help="Discard a checkpoint and start over.")
@json_option
def prefer(
    run: Path,
    data: Path,
    out: Path,
    beta: float,
    learning_rate: float,
    epochs: float,
    fresh: bool,
    as_json: bool,
) -> None:
    """Train RUN on: right replies preferred to wrong ones (DPO, by TRL).

    Where the context suffices, the answer to the abstention phrase; where it does not, the phrase
    to the answer of the row's parent, or to what RUN answers. Killed and started again, it goes on.
    Calibrate the new run afterwards.
    """
    from train import prefer as preferring

    settings = preferring.PreferSettings(beta, learning_rate, epochs)
    found = preferring.prefer(run, data, out, settings, fresh)
    text = (
        f"{found['pairs']} pairs in {found['seconds'] / 60:.1f} minutes, loss "
        f"{found['loss'][0]:.3f} → {found['loss'][-1]:.3f}\n"
    )
    text += "".join(f"{count} rows left out: {why}\n" for why, count in found["dropped"].items())
    text += f"written to {out}; next: abstain calibrate {out} --data {data}"
    console.show(found, text, as_json)


@click.command()
@click.argument("run", type=PATH)
@click.option("--data", type=PATH, required=True, help="Folder of `curate build`: its prompts.")
@click.option("--out", type=PATH, required=True, help="Folder, or a file for GGUF.")
@click.option(
    "--as",
    "kind",
    type=click.Choice(["merged", "bfloat16", "adapter", "gguf-f32", "gguf-f16", "gguf-q8_0"]),
    default="merged",
    show_default=True,
    help="One plain model, the same in half precision, PEFT's adapter, or llama.cpp's format.",
)
@click.option("--prompts", type=click.IntRange(1), default=100, show_default=True)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    default=0.03,
    show_default=True,
    help="Share of prompts on which it may decide otherwise, and loss of f1.",
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

    Both are asked the same validation prompts, and what the comparison finds is kept in
    export.json. A merged folder is a run like RUN, its head included; an adapter is for those who
    load it by PEFT alone, on its base as that is stored; a GGUF file is served by others, and asked
    through `abstain connect`. No threshold goes along: calibrate anew.
    """
    from train import export as exporting

    found = exporting.export(run, out, kind, data, prompts, tolerance)
    console.show(found.to_json(), f"{found.text()}\nwritten to {out}", as_json)


@click.command()
@click.argument("model")
@click.option("--out", type=PATH, required=True, help="Folder for the pruned model.")
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
@click.option("--data", type=PATH, help="Folder of `curate build`: prompts for wanda.")
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


@click.command()
@click.argument("run", type=PATH)
@json_option
def forgetting(run: Path, as_json: bool) -> None:
    """Measure what RUN has unlearnt: plain text, instructions, common knowledge, over-refusal."""
    from train import forgetting as measuring

    found = measuring.forgetting(run)
    console.show(found.to_json(), found.text(), as_json)


@click.command()
@click.option(
    "--round",
    "rounds",
    type=(PATH, PATH),
    multiple=True,
    required=True,
    metavar="RUN DATA",
    help="A run and the data set it was trained on; twice or more, the oldest first.",
)
@click.option("--out", type=PATH, required=True, help="Folder for what the runs answer.")
@click.option("--limit", type=_ABOVE_0, help="Fail where f1 has fallen by more, e.g. 0.05.")
@json_option
def continual(
    rounds: tuple[tuple[Path, Path], ...], out: Path, limit: float | None, as_json: bool
) -> None:
    """Measure what later rounds of learning have cost on the test rows of earlier ones.

    For a model that learns again from what people answer (`abstain queue export`). Rows on whose
    contexts a later round trains are left out. Killed and started again, it goes on.

    \b
      train continual --round out/run-1 out/data-1 --round out/run-2 out/data-2 --out out/continual
    """
    from curate.errors import UserError
    from train import continual as measuring

    found = measuring.continual([measuring.Round(run, data) for run, data in rounds], out)
    console.show(found.to_json(), found.text(), as_json)
    if limit is not None and (worst := found.worst("f1")) < -limit:
        raise UserError(f"f1 has fallen by {-worst:.3f} on an earlier round, more than {limit:g}")
