"""Does a search find settings that beat the defaults? On the rows of the tables of fine-tuning.

    python -m benchmarks.search [--data DIR] [--trials 8] [--docs docs/search.md]

`train search` varies what it varies unless told otherwise, chooses on the validation rows, and is
judged on test rows that chose nothing. Stopped and started again, it goes on where it was.
"""

from benchmarks.fine_tuning import TEST, VALIDATION, arguments, command, split, squad2
from curate.files import write_text


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--metric", default="f1")
    given = parser.parse_args()
    split(given.data or squad2(), given.out, given.rows)
    study = given.out / "search"
    told = command(
        "train", "search", "--data", given.out / "data/all", "--out", study, "--epochs", 1,
        "--trials", given.trials, "--metric", given.metric, "--model", given.model,
    )  # fmt: skip
    if given.docs:
        heading = HEADING.format(**vars(given), validation=VALIDATION, test=TEST)
        write_text(given.docs, f"{heading}\n```\n{told.strip()}\n```\n")


HEADING = """# Settings that beat the defaults, looked for

Written by `python -m benchmarks.search --docs docs/search.md`: {rows} rows of SQuAD 2.0, one pass,
{trials} trials of `train search` (TPE), chosen by {metric} on {validation} validation rows,
compared with the defaults on {test} test rows; the intervals are over their contexts, 95 %.
"""


if __name__ == "__main__":
    main()
