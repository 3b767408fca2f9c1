"""What the tables of fine-tuning share: the same rows, a run each, and the same judges.

Everything is done once: stopped and started again, a table goes on, and what two tables have in
common lies in one folder.
"""

import argparse
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from abstain.groups import draw_contexts
from abstain.model import EMBEDDED, load_model
from abstain.run import weights_hash
from benchmarks import markdown
from benchmarks.demo import BIN
from benchmarks.paths import ROOT
from curate.console import interval, table
from curate.contract import Contract
from curate.files import read_json, write_json, write_text
from curate.record import Row, digest, read_fold, rows_digest, to_table, write_table
from train.forgetting import abilities
from train.kept import kept
from train.run_folder import TRAINING

VALIDATION = 48
TEST = 120
HEADER = ("M trained", "GiB", "s", "F1", "F1, answerable", "unanswerable, declined",
          "AUROC sufficient", "bits a byte", "everyday questions", "over-refusal")  # fmt: skip
COLUMNS = """`GiB` is the peak of the process, `s` the training loop; intervals over test contexts,
95 %, of what the model says itself, without a threshold. `bits a byte` is what plain text costs
more than before, `everyday questions` the share answered rightly without a context, `over-refusal`
the share of everyday questions and instructions that get the abstention phrase (`train
forgetting`)."""


def make(
    about: str | None,
    title: str,
    names: Iterable[str],
    run_of: Callable[[argparse.Namespace, str], Path],
    options: Mapping[str, Sequence[object]] = MappingProxyType({}),
    note: str = "",
) -> None:
    """A table with a line for each name, whose run ``run_of`` trains; the page, where asked for."""
    names = list(names)
    parser = arguments(about)
    parser.add_argument("--epochs", type=float, default=1.0)
    parser.add_argument("--only", nargs="+", default=names, choices=names, help="some lines")
    given = parser.parse_args()
    split(given.data or squad2(), given.out, given.rows)
    found = tabulate(given, ((name, run_of(given, name)) for name in given.only))
    document(given, title, found, options, note)


def arguments(about: str | None) -> argparse.ArgumentParser:
    """What every page on these rows is asked with."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--data", type=Path, help="of `curate build`; none given: SQuAD 2.0")
    parser.add_argument("--rows", type=int, default=256, help="of the train split")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/fine_tuning")
    parser.add_argument("--docs", type=Path)
    return parser


def squad2() -> Path:
    """The real data that the tables are about, built once."""
    data = ROOT / "out/squad2"
    if not (data / "manifest.json").exists():
        command("curate", "build", ROOT / "data/recipes/squad2.yaml", "--out", data)
    return data


def document(
    given: argparse.Namespace,
    title: str,
    found: str,
    options: Mapping[str, Sequence[object]],
    note: str,
) -> None:
    """The page that ``--docs`` asks for: how it was made, the table, and each line's options."""
    if not given.docs:
        return
    script = Path(sys.argv[0]).stem
    lines = [
        f"- {name}: `train run {' '.join(map(str, of))}`" for name, of in options.items() if of
    ]
    parts = [
        f"# {title}",
        f"Written by `python -m benchmarks.{script} --docs docs/{script}.md`: "
        f"{given.rows} rows, {given.epochs:g} passes over them, the embedded model, one seed.\n"
        + COLUMNS,
        found,
        "\n".join([*lines, *([note] if note else [])]),
    ]
    write_text(given.docs, "\n\n".join(part for part in parts if part) + "\n")


def some(rows: list[Row], count: int) -> list[Row]:
    """So many rows: whole contexts, drawn by seed, the last one cut."""
    return list(itertools.chain.from_iterable(draw_contexts(rows, count, 11)))[:count]


def split(data: Path, out: Path, rows: int) -> None:
    """The rows of all runs, and two halves for adapters that are fused."""
    train = some(read_fold(data, "train"), rows)
    parts = {"all": train, "half-1": train[: rows // 2], "half-2": train[rows // 2 :]}
    validation = some(read_fold(data, "validation"), VALIDATION)
    test = some(read_fold(data, "test"), TEST)
    for name, part in parts.items():
        folder = out / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        for fold, chosen in (("train", part), ("validation", validation), ("test", test)):
            write_table(to_table(chosen), folder / f"{fold}.parquet")


def command(*arguments: object) -> str:
    """What one installed command prints, in a process of its own."""
    given = [str(argument) for argument in arguments]
    print("$ " + " ".join(given), flush=True)
    done = subprocess.run(
        [str(BIN / given[0]), *given[1:]], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def trained(given: argparse.Namespace, name: str, *options: object, data: str = "all") -> Path:
    """A run with these options of `train run`; made once."""
    run: Path = given.out / name.replace(",", "").replace(" ", "-")
    fixed = ("--model", given.model, "--epochs", given.epochs)
    command("train", "run", "--data", given.out / "data" / data, "--out", run, *fixed, *options)
    return run


def judged(given: argparse.Namespace, name: str, run: Path | None) -> dict[str, Any]:
    """What the test rows say of a run, and what it can still do; None: of the untrained model."""
    out, data = given.out, given.out / "data/all"
    model = str(run) if run is not None else given.model

    def judge() -> dict[str, Any]:
        evaluation = out / f"evaluation-{name}"
        command("abstain", "evaluate", model, "--data", data, "--out", evaluation)
        metrics = read_json(evaluation / "metrics.json")["raw"]
        names = ("em", "f1", "no_ans_accuracy", "has_ans_f1", "auroc_sufficient")
        found = {key: metrics[key] for key in names}
        return {**found, "abilities": asdict(abilities(load_model(model), Contract()))}

    of = digest(weights_hash(run) if run is not None else "", rows_digest(read_fold(data, "test")))
    found: dict[str, Any] = kept(out / f"{name}.json", of, judge)
    if run is None:
        return found
    training = read_json(run / TRAINING)
    seconds, gib = training["progress"]["seconds"], training["progress"]["peak_memory"]
    if "preferences" in training:  # trained on, from another run
        seconds += training["preferences"]["seconds"]
        gib = max(gib, training["preferences"]["peak_memory_gib"])
    return {**found, "seconds": seconds, "gib": gib, "trained": training["trained_parameters"]}


def line(name: str, found: dict[str, Any], untrained: dict[str, Any]) -> tuple[str, ...]:
    """One row of a table under `HEADER`."""
    quality = [interval(found[key]) for key in ("f1", "has_ans_f1", "no_ans_accuracy")]
    quality.append(interval(found["auroc_sufficient"]))
    before, after = (one["abilities"] for one in (untrained, found))
    lost = f"{after['bits_a_byte'] / before['bits_a_byte'] - 1:+.1%}"
    able = (lost, f"{after['closed_book']:.2f}", f"{after['refusals']:.2f}")
    if "seconds" not in found:
        return (name, "0", "", "", *quality, *able)
    spent = (f"{found['trained'] / 1e6:.2f}", f"{found['gib']:.2f}", f"{found['seconds']:.0f}")
    return (name, *spent, *quality, *able)


def tabulate(given: argparse.Namespace, runs: Iterable[tuple[str, Path]]) -> str:
    """Judge runs, each as soon as it is trained, beside the untrained model; print and return all.

    The numbers are kept in ``table-SCRIPT.json``.
    """
    what = Path(sys.argv[0]).stem
    untrained = judged(given, "untrained", None)
    found = {"untrained": untrained}
    for name, run in runs:
        found[name] = judged(given, run.name, run)
        print(*line(name, found[name], untrained), sep="  ", flush=True)
    header, lines = (what, *HEADER), [line(name, one, untrained) for name, one in found.items()]
    print(table(header, lines))
    write_json(given.out / f"table-{what}.json", found)
    return markdown.table(header, lines)
