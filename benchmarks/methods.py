"""Every way of fine-tuning on the same rows: quality, size, memory, time and forgetting.

    python -m benchmarks.methods [--data DIR] [--rows 256] [--epochs 1] [--docs docs/methods.md]

DIR is a data set of `curate build`; none given, SQuAD 2.0's visible part is built. So many rows of
its train split, contexts with all their questions, are trained on by each method with its own
default settings; validation picks the weights, and the same test rows judge what the model says
itself (no threshold). AdapterFusion combines two bottleneck adapters, each trained on half of the
rows. Stopped and started again, it goes on where it was.
"""

import argparse
from pathlib import Path

from benchmarks.fine_tuning import make, trained
from train.methods import METHODS


def run_of(given: argparse.Namespace, method: str) -> Path:
    """A run of one method."""
    options: list[object] = ["--method", method]
    if method == "adapterfusion":
        for half in ("half-1", "half-2"):
            bottleneck = trained(given, f"bottleneck-{half}", "--method", "bottleneck", data=half)
            options += ["--fuse", bottleneck]
    return trained(given, method, *options)


if __name__ == "__main__":
    make(__doc__, "Ways of fine-tuning", METHODS, run_of)
