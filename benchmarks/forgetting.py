"""What helps against forgetting: countermeasures side by side, on the same rows.

    python -m benchmarks.forgetting --data DIR [--rows 256] [--epochs 2] [--docs docs/forgetting.md]

The same rows and judges as in `benchmarks.methods`; stopped and started again, it goes on where it
was.
"""

import argparse
from pathlib import Path

from benchmarks.fine_tuning import split, tabulate, trained
from benchmarks.paths import ROOT
from curate.files import write_text

# What each changes of `train run`'s defaults.
MEASURES: dict[str, tuple[object, ...]] = {
    "none": (),
    "rehearsal": ("--replay", 0.2),
    "rehearsal, as KL": ("--replay", 0.2, "--kl", 1.0),
    "more rehearsal": ("--replay", 1.0),
    "rank 4": ("--rank", 4),
    "half the rate": ("--learning-rate", 2e-4),
    "averaged with the base": ("--average", 0.7),
    "rehearsal and averaged": ("--replay", 0.2, "--average", 0.7),
    "low-lr": ("--method", "low-lr"),
}


def run_of(out: Path, name: str, epochs: float) -> Path:
    """A run with one countermeasure."""
    return trained(
        out, name.replace(",", "").replace(" ", "-"), "--epochs", epochs, *MEASURES[name]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/forgetting")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    split(given.data, given.out, given.rows)
    runs = ((name, run_of(given.out, name, given.epochs)) for name in MEASURES)
    found = tabulate(given.out, "forgetting", runs)
    if given.docs:
        options = "\n".join(
            f"- {name}: `train run {' '.join(map(str, some))}`"
            for name, some in MEASURES.items()
            if some
        )
        heading = (
            "# What helps against forgetting\n\nWritten by `python -m benchmarks.forgetting --data "
            f"DIR --docs docs/forgetting.md`: {given.rows} rows, {given.epochs:g} passes over "
            "them, the embedded model, LoRA unless another method is named, one seed. The columns "
            "are those of [docs/methods.md](methods.md).\n\n"
        )
        write_text(given.docs, f"{heading}{found}\n\n{options}\n")


if __name__ == "__main__":
    main()
