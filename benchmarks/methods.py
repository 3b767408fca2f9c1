"""Every way of fine-tuning on the same rows: quality, size, memory, time and forgetting.

    python -m benchmarks.methods --data DIR [--rows 256] [--epochs 2] [--docs docs/methods.md]

DIR is a data set such as `curate build data/recipes/squad2.yaml` makes. So many rows of its train
split, contexts with all their questions, are trained on by each method with its own default
settings; validation picks the weights, and the same test rows judge what the model says itself
(no threshold). AdapterFusion combines two bottleneck adapters, each trained on half of the rows.
Stopped and started again, it goes on where it was.
"""

import argparse
from pathlib import Path

from benchmarks.fine_tuning import split, tabulate, trained
from benchmarks.paths import ROOT
from curate.files import write_text
from train.methods import METHODS


def run_of(out: Path, method: str, epochs: float) -> Path:
    """A run of one method."""
    options: list[object] = ["--method", method, "--epochs", epochs]
    if method == "adapterfusion":
        for half in ("half-1", "half-2"):
            name, parts = f"bottleneck-{half}", ("--method", "bottleneck", "--epochs", epochs)
            options += ["--fuse", trained(out, name, *parts, data=half)]
    return trained(out, method, *options)


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
    runs = ((name, run_of(given.out, name, given.epochs)) for name in given.methods)
    found = tabulate(given.out, "methods", runs)
    if given.docs:
        heading = (
            "# Ways of fine-tuning\n\nWritten by `python -m benchmarks.methods --data DIR --docs "
            f"docs/methods.md`: {given.rows} rows, {given.epochs:g} passes over them, the embedded "
            "model, each method's default settings, one seed. `GiB` is the peak of the process, "
            "`s` the training loop; intervals over test contexts, 95 %. `bits a byte` is what "
            "plain text costs more than before, `everyday questions` the share answered rightly "
            "before and after, `over-refusal` the share of everyday questions and instructions "
            "that now get the abstention phrase (`train forgetting`).\n\n"
        )
        write_text(given.docs, f"{heading}{found}\n")


if __name__ == "__main__":
    main()
