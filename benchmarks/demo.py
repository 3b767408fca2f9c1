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
import time
from pathlib import Path

from curate.console import table
from curate.files import write_json

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
# From a page of the test fold: the model has not been trained on it.
PASSAGE = (
    "The annual membership of Harrowvale Cycle Share costs £72 and runs for twelve months from the "
    "day of payment. It includes an unlimited number of rides on classic bikes, each of up to 45 "
    "minutes. Annual members may take out two bikes at the same time on one account, so that a "
    "guest can ride along."
)
QUESTIONS = (
    "What is the price of a membership for a whole year?",
    "How many bikes can an annual member hire at once?",
    "How much does the guest who rides along with an annual member pay?",
    "Who won the election in 1996?",
)


def run(*arguments: object) -> float:
    """Run one installed command in view of the user; give its seconds, stop if it fails."""
    command = [str(argument) for argument in arguments]
    print(f"\n$ {shlex.join(command)}", flush=True)
    started = time.perf_counter()
    done = subprocess.run([str(BIN / command[0]), *command[1:]], cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return time.perf_counter() - started


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
    context = out / "passage.txt"
    (ROOT / context).write_text(PASSAGE, encoding="utf-8")
    print(f"\n{PASSAGE}")
    seconds["ask"] = sum(
        run("abstain", "ask", trained, question, "--context", context) for question in QUESTIONS
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print("\n" + table(("stage", "seconds"), [(k, f"{v:.0f}") for k, v in seconds.items()]))
    print(f"in all {sum(seconds.values()) / 60:.1f} minutes, at most {peak:.2f} GiB of memory")
    print(f"\nlook at {data / 'report.html'} and {evaluation / 'report.html'}")
    write_json(ROOT / out / "timing.json", {"seconds": seconds, "peak_memory_gib": peak})


if __name__ == "__main__":
    main()
