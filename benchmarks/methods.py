"""Every way of fine-tuning on the same rows: quality, size, memory, time and forgetting.

    python -m benchmarks.methods --data DIR [--rows 256] [--epochs 2] [--docs docs/methods.md]

DIR is a data set such as `curate build data/recipes/squad2.yaml` makes. So many rows of its train
split, contexts with all their questions, are trained on by each method with its own default
settings; validation picks the weights, and the same test rows judge what the model says itself
(no threshold). AdapterFusion combines two bottleneck adapters, each trained on half of the rows.
Each method runs in processes of its own; stopped and started again, it goes on where it was.
"""

import argparse
import json
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.demo import BIN
from benchmarks.paths import ROOT
from curate.console import interval, table
from curate.files import write_json, write_text
from curate.record import Row, read_fold, to_table, write_table
from train.methods import METHODS

VALIDATION = 96
TEST = 240


def some(rows: list[Row], count: int) -> list[Row]:
    """About so many rows: whole contexts, drawn by seed."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.context].append(row)
    names = random.Random(11).sample(sorted(groups), len(groups))
    found: list[Row] = []
    for name in names:
        if len(found) < count:
            found += groups[name]
    return found[:count]


def split(data: Path, out: Path, rows: int) -> None:
    """The rows of all methods, and two halves for the adapters that are fused."""
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
    """One installed command; its output."""
    given = [str(argument) for argument in arguments]
    print("$ " + " ".join(given), flush=True)
    done = subprocess.run([str(BIN / given[0]), *given[1:]], stdout=subprocess.PIPE, text=True,
                          cwd=ROOT, check=False)  # fmt: skip
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def trained(out: Path, method: str, epochs: float, data: str = "all", name: str = "") -> Path:
    """A run of one method; made once."""
    run = out / (name or method)
    fuse: list[object] = []
    if method == "adapterfusion":
        for half in ("half-1", "half-2"):
            fuse += ["--fuse", trained(out, "bottleneck", epochs, half, f"bottleneck-{half}")]
    command("train", "run", "--data", out / "data" / data, "--out", run, "--method", method,
            "--epochs", epochs, *fuse)  # fmt: skip
    return run


def judged(out: Path, method: str, run: Path | None) -> dict[str, Any]:
    """What the test rows say of a run, and what it has unlearnt; None: of the untrained model."""
    done = out / f"{method}.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    evaluation = out / f"evaluation-{method}"
    model = run if run is not None else "smollm2-135m"
    command("abstain", "evaluate", model, "--data", out / "data/all", "--out", evaluation)
    metrics = json.loads((evaluation / "metrics.json").read_text())["raw"]
    found = {key: metrics[key] for key in ("em", "f1", "no_ans_accuracy", "has_ans_f1")}
    found["auroc_sufficient"] = metrics["auroc_sufficient"]
    if run is not None:
        training = json.loads((run / "training.json").read_text())
        progress = training["progress"]
        found |= {"seconds": progress["seconds"], "gib": progress["peak_memory"]}
        found["trained"] = training["trained_parameters"]
        found["forgetting"] = json.loads(command("train", "forgetting", run, "--json"))
    write_json(done, found)
    return found


def line(method: str, found: dict[str, Any]) -> tuple[str, ...]:
    """One row of the table."""
    quality = [interval(found[key]) for key in ("f1", "has_ans_f1", "no_ans_accuracy")]
    quality.append(interval(found["auroc_sufficient"]))
    if "seconds" not in found:
        return (method, "0", "", "", *quality, "", "")
    forgot = found["forgetting"]
    return (
        method,
        f"{found['trained'] / 1e6:.2f}",
        f"{found['gib']:.2f}",
        f"{found['seconds']:.0f}",
        *quality,
        f"{forgot['lost']:+.1%}",
        f"{forgot['after']['refusals']:.2f}",
    )


HEADER = ("method", "M trained", "GiB", "s", "F1", "F1, answerable", "unanswerable, declined",
          "AUROC sufficient", "bits a byte", "over-refusal")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/methods")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    split(given.data, given.out, given.rows)
    found = {"untrained": judged(given.out, "untrained", None)}
    for method in given.methods:
        run = trained(given.out, method, given.epochs)
        found[method] = judged(given.out, method, run)
        print(*line(method, found[method]), sep="  ", flush=True)
    lines = [line(method, one) for method, one in found.items()]
    print(table(HEADER, lines))
    write_json(given.out / "methods.json", found)
    if given.docs:
        heading = (
            "# Ways of fine-tuning\n\nWritten by `python -m benchmarks.methods --data DIR --docs "
            f"docs/methods.md`: {given.rows} rows, {given.epochs:g} passes over them, the embedded "
            "model, each method's default settings, one seed. `GiB` is the peak of the process, "
            "`s` the training loop; intervals over test contexts, 95 %. `bits a byte` is what "
            "plain text costs more than before, `over-refusal` the share of everyday questions "
            "that now get the abstention phrase (`train forgetting`).\n\n"
        )
        write_text(given.docs, heading + markdown.table(HEADER, lines) + "\n")


if __name__ == "__main__":
    main()
