"""What the tables of fine-tuning share: the same rows, a run each, and the same judges.

Everything is done in processes of its own, and once: stopped and started again, a table goes on.
"""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from abstain.groups import draw_contexts
from benchmarks import markdown
from benchmarks.demo import BIN
from benchmarks.paths import ROOT
from curate.console import interval, table
from curate.files import write_json
from curate.record import Row, read_fold, to_table, write_table

VALIDATION = 96
TEST = 240
HEADER = ("M trained", "GiB", "s", "F1", "F1, answerable", "unanswerable, declined",
          "AUROC sufficient", "bits a byte", "everyday questions", "over-refusal")  # fmt: skip


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
    """One installed command; its output."""
    given = [str(argument) for argument in arguments]
    print("$ " + " ".join(given), flush=True)
    done = subprocess.run([str(BIN / given[0]), *given[1:]], stdout=subprocess.PIPE, text=True,
                          cwd=ROOT, check=False)  # fmt: skip
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def trained(out: Path, name: str, *options: object, data: str = "all") -> Path:
    """A run with these options of `train run`; made once."""
    run = out / name
    command("train", "run", "--data", out / "data" / data, "--out", run, *options)
    return run


def judged(out: Path, name: str, run: Path | None) -> dict[str, Any]:
    """What the test rows say of a run, and what it has unlearnt; None: of the untrained model."""
    done = out / f"{name}.json"
    if done.exists():
        found: dict[str, Any] = json.loads(done.read_text())
        return found
    evaluation = out / f"evaluation-{name}"
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


def line(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    """One row of a table under `HEADER`."""
    quality = [interval(found[key]) for key in ("f1", "has_ans_f1", "no_ans_accuracy")]
    quality.append(interval(found["auroc_sufficient"]))
    if "seconds" not in found:
        return (name, "0", "", "", *quality, "", "", "")
    forgot = found["forgetting"]
    return (
        name,
        f"{found['trained'] / 1e6:.2f}",
        f"{found['gib']:.2f}",
        f"{found['seconds']:.0f}",
        *quality,
        f"{forgot['lost']:+.1%}",
        f"{forgot['before']['closed_book']:.2f} → {forgot['after']['closed_book']:.2f}",
        f"{forgot['after']['refusals']:.2f}",
    )


def tabulate(out: Path, what: str, runs: Iterable[tuple[str, Path]]) -> str:
    """Judge runs, each as soon as it is trained, beside the untrained model; print and return all.

    ``what`` names the first column, and with ``.json`` the file of the numbers.
    """
    found = {"untrained": judged(out, "untrained", None)}
    for name, run in runs:
        found[name] = judged(out, run.name, run)
        print(*line(name, found[name]), sep="  ", flush=True)
    header, lines = (what, *HEADER), [line(name, one) for name, one in found.items()]
    print(table(header, lines))
    write_json(out / f"{what}.json", found)
    return markdown.table(header, lines)
