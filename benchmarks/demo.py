"""`make demo`: from documents to a model that abstains, through the installed commands.

    python -m benchmarks.demo [--out out/demo]

Prints each command before it runs, then what it took. Stopped and started again, it goes on
where it was: each of the commands does.
"""

import argparse
import resource
import shlex
import subprocess
import sys
import textwrap
import time
from collections import defaultdict
from pathlib import Path

from benchmarks.paths import ROOT
from curate.console import table
from curate.files import write_json
from curate.record import Row, read_fold
from train.memory import peak_resident

BIN = Path(sys.executable).parent
PASSAGES = 4  # of the test split, from as many pages, asked about at the end


def run(*arguments: object) -> float:
    """Run one installed command in view of the user; give its seconds, stop if it fails."""
    command = [str(argument) for argument in arguments]
    print(f"\n$ {shlex.join(command)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False)
    if done.returncode:
        print("\nmake demo stopped; it goes on where it was, or, with its out folder removed, anew")
        sys.exit(done.returncode)
    return time.perf_counter() - started


def unseen(data: Path) -> list[tuple[str, list[str]]]:
    """A passage of each of the first test pages with questions of both kinds, and its questions."""
    passages: dict[str, list[Row]] = defaultdict(list)
    for row in read_fold(ROOT / data, "test"):
        if row.method == "human":
            passages[row.context].append(row)
    pages: dict[str, list[Row]] = {}
    for rows in passages.values():
        if len({row.sufficient for row in rows}) == 2:
            pages.setdefault(rows[0].document_id, rows)
    chosen = list(pages.values())[:PASSAGES]
    return [(rows[0].context, [row.question for row in rows]) for rows in chosen]


def ask(trained: Path, passage: str, questions: list[str], file: Path) -> float:
    """Put one passage to the model, and all questions about it."""
    (ROOT / file).write_text(passage, encoding="utf-8")
    print(f"\n{textwrap.fill(passage, 100)}")
    return run("abstain", "ask", trained, "--context", file, *questions)


def main() -> None:
    """The whole way, timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    out = parser.parse_args().out
    data, trained, evaluation = out / "data", out / "run", out / "evaluation"
    seconds = {
        "build": run("curate", "build", "data/recipes/demo.yaml", "--out", data),
        "preflight": run("train", "preflight", "--data", data),
        "train": run(
            "train", "run", "--data", data, "--out", trained, "--config", "data/demo/train.yaml"
        ),
        "calibrate": run("abstain", "calibrate", trained, "--data", data, "--target-risk", 0.3),
        "evaluate": run("abstain", "evaluate", trained, "--data", data, "--out", evaluation),
    }
    seconds["ask"] = sum(
        ask(trained, passage, questions, out / f"passage-{number}.txt")
        for number, (passage, questions) in enumerate(unseen(data), 1)
    )
    peak = peak_resident(resource.RUSAGE_CHILDREN)
    print("\n" + table(("stage", "seconds"), [(k, f"{v:.0f}") for k, v in seconds.items()]))
    print(f"in all {sum(seconds.values()) / 60:.1f} minutes, at most {peak:.2f} GiB of memory")
    print(f"\nlook at {data / 'report.html'} and {evaluation / 'report.html'}")
    write_json(ROOT / out / "timing.json", {"seconds": seconds, "peak_memory_gib": peak})


if __name__ == "__main__":
    main()
