"""What helps against forgetting: countermeasures side by side, on the same rows.

    python -m benchmarks.forgetting [--data DIR] [--rows 256] [--docs docs/forgetting.md]

The same rows and judges as in `benchmarks.methods`; stopped and started again, it goes on where it
was.
"""

import argparse
from pathlib import Path

from benchmarks.fine_tuning import make, trained

# What each changes of `train run`'s defaults; what `benchmarks.methods` has trained has its name.
MEASURES: dict[str, tuple[object, ...]] = {
    "lora": (),
    "lora, rehearsal": ("--replay", 0.2),
    "lora, rehearsal as KL": ("--replay", 0.2, "--kl", 1.0),
    "lora, more rehearsal": ("--replay", 1.0),
    "lora, rank 4": ("--rank", 4),
    "lora, half the rate": ("--learning-rate", 2e-4),
    "lora, averaged with the base": ("--average", 0.7),
    "lora, rehearsal and averaged": ("--replay", 0.2, "--average", 0.7),
    "low-lr": ("--method", "low-lr"),
}


def run_of(given: argparse.Namespace, name: str) -> Path:
    """A run with one countermeasure."""
    return trained(given, name, *MEASURES[name])


if __name__ == "__main__":
    make(__doc__, "What helps against forgetting", MEASURES, run_of, MEASURES)
