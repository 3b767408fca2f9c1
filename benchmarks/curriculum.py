"""What teaching to abstain beyond plain fine-tuning brings: options side by side, same rows.

    python -m benchmarks.curriculum [--data DIR] [--rows 256] [--docs docs/curriculum.md]

The same rows and judges as in `benchmarks.methods`; stopped and started again, it goes on where it
was.
"""

import argparse
from pathlib import Path

from benchmarks.fine_tuning import command, make, trained

# What each changes of `train run`'s defaults; what `benchmarks.methods` has trained has its name.
OPTIONS: dict[str, tuple[object, ...]] = {
    "lora": (),
    "lora, refusal-aware 0.5": ("--refusal-aware", 0.5),
    "lora, declining earns 0.2": ("--abstain-reward", 0.2),
    "lora, declining earns 0.5": ("--abstain-reward", 0.5),
}
PREFERRED = "lora, then preferences"


def run_of(given: argparse.Namespace, name: str) -> Path:
    """A run with one option; preferences are taught to the plain run."""
    if name != PREFERRED:
        return trained(given, name, *OPTIONS[name])
    plain, run = run_of(given, "lora"), Path(given.out / "lora-preferred")
    command("train", "prefer", plain, "--data", given.out / "data/all", "--out", run)
    return run


if __name__ == "__main__":
    make(
        __doc__,
        "Teaching to abstain, beyond plain fine-tuning",
        [*OPTIONS, PREFERRED],
        run_of,
        OPTIONS,
        f"- {PREFERRED}: `train prefer` of the first",
    )
