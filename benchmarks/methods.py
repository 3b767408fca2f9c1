"""Every way of fine-tuning on the same rows: quality, size, memory, time and forgetting.

    python -m benchmarks.methods --data DIR [--rows 256] [--epochs 1] [--docs docs/methods.md]

DIR is a data set such as `curate build data/recipes/squad2.yaml` makes. So many rows of its train
split, contexts with all their questions, are trained on by each method with its own default
settings; validation picks the weights, and the same test rows judge what the model says itself
(no threshold). AdapterFusion combines two bottleneck adapters, each trained on half of the rows.
Stopped and started again, it goes on where it was.
"""

from pathlib import Path

from benchmarks.fine_tuning import arguments, document, split, tabulate, trained
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
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    given = parser.parse_args()
    split(given.data, given.out, given.rows)
    runs = ((name, run_of(given.out, name, given.epochs)) for name in given.methods)
    found = tabulate(given.out, "methods", runs)
    document(given, "Ways of fine-tuning", found, {})


if __name__ == "__main__":
    main()
