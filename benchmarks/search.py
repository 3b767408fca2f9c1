"""Does a search find settings that beat the defaults? On the rows of the tables of fine-tuning.

    python -m benchmarks.search [--data DIR] [--trials 8] [--docs docs/search.md]

`train search` varies what it varies unless told otherwise, chooses on the validation rows, and is
judged on test rows that chose nothing. Stopped and started again, it goes on where it was.
"""

import argparse
from pathlib import Path

from abstain.model import EMBEDDED
from benchmarks.fine_tuning import command, split, squad2
from benchmarks.paths import ROOT
from curate.files import write_text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="of `curate build`; none given: SQuAD 2.0")
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--metric", default="f1")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/fine_tuning")
    parser.add_argument("--docs", type=Path)
    given = parser.parse_args()
    split(given.data or squad2(), given.out, given.rows)
    study = given.out / "search"
    told = command(
        "train", "search", "--data", given.out / "data/all", "--out", study, "--epochs", 1,
        "--trials", given.trials, "--metric", given.metric, "--model", given.model,
    )  # fmt: skip
    if given.docs:
        write_text(given.docs, f"{HEADING.format(**vars(given))}\n```\n{told.strip()}\n```\n")


HEADING = """# Settings that beat the defaults, looked for

Written by `python -m benchmarks.search --docs docs/search.md`: {rows} rows of SQuAD 2.0, one pass,
{trials} trials of `train search` (TPE), chosen by {metric} on 48 validation rows, compared with the
defaults on 120 test rows; the intervals are over their contexts, 95 %.
"""


if __name__ == "__main__":
    main()
