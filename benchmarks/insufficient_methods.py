"""Which methods pay: one model trained on human negatives, on all methods, and on all unbalanced.

    python -m benchmarks.insufficient_methods --data DIR --out OUT [--rows 2000] [--docs PAGE]

DIR is a data set with every method (`curate build data/recipes/squad2-methods.yaml`). From its
train split three are drawn, of as many rows each, and trained on for as many tokens: human rows
alone, half of them insufficient; rows of all methods, half insufficient, without those that give
their label away; rows of all methods as they come. Each is tested on the same rows. Stopped and
started again, it goes on where it was.
"""

import argparse
import random
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abstain.groups import resampling_groups
from abstain.metrics import exact_match
from abstain.model import load_tokenizer
from benchmarks.markdown import table
from curate.audit.balance import balanced
from curate.auroc import auroc
from curate.bootstrap import intervals
from curate.console import interval
from curate.contract import Contract
from curate.files import write_json, write_text
from curate.insufficient import distracted, noise_passages
from curate.record import Row, read_fold, read_rows, to_table, write_table

BIN = Path(sys.executable).parent
EPOCHS = 3.0  # over the set with the fewest tokens; the others see as many tokens
LIMIT = 0.6  # AUROC of a shortcut, in the balanced set
CONTRAST = 100  # rows of a kind; many-passage contexts take seconds each, and share none
KINDS = ("human negatives", "all methods", "all methods, unbalanced")


def draw(rows: Sequence[Row], count: int) -> dict[str, list[Row]]:
    """The three train splits of ``count`` rows each."""
    shuffled = sorted(rows, key=lambda row: row.id)
    random.Random(13).shuffle(shuffled)
    human = [row for row in shuffled if row.method == "human"]
    kept = balanced(shuffled, LIMIT).rows
    return {
        KINDS[0]: _halves(human, count),
        KINDS[1]: _halves(kept, count),
        KINDS[2]: shuffled[:count],
    }


def _halves(rows: Sequence[Row], count: int) -> list[Row]:
    """As many of either label; insufficient rows of each method in turns."""
    yes = [row for row in rows if row.sufficient]
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if not row.sufficient:
            by_method[row.method].append(row)
    no: list[Row] = []
    while len(no) < count // 2 and by_method:
        for method in list(by_method):
            no.append(by_method[method].pop())
            if not by_method[method]:
                del by_method[method]
    # The sufficient twin of passages without the answer is passages with it.
    twins = sum(row.method == noise_passages.METHOD for row in no[: count // 2])
    among = [row for row in yes if row.method == distracted.METHOD][:twins]
    plain = [row for row in yes if row.method != distracted.METHOD]
    return [*(among + plain)[: count // 2], *no[: count // 2]]


def contrasts(data: Path) -> list[Row]:
    """Of each kind of the contrast set `CONTRAST` rows, drawn."""
    by_kind: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(data / "contrast.parquet"):
        by_kind[row.method].append(row)
    draw = random.Random(13)
    return [
        row
        for _, rows in sorted(by_kind.items())
        for row in draw.sample(rows, min(CONTRAST, len(rows)))
    ]


def tokens(rows: Sequence[Row], tokenizer: Any) -> int:
    """Of all prompts and answers, row by row."""
    contract = Contract()
    texts = [
        contract.prompt(tokenizer, row.context, row.question, row.history)
        + contract.target(row.answers, bool(row.sufficient))
        for row in rows
    ]
    return sum(len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"])


def run(*arguments: object) -> None:
    """One installed command, in view; the benchmark ends where it fails."""
    command = [str(argument) for argument in arguments]
    print("$", *command, flush=True)
    subprocess.run([str(BIN / command[0]), *command[1:]], check=True)


def measured(evaluation: Path, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each kind of rows: how many, how many were treated as they should, and how they rank.

    The rank is the AUROC of the sufficiency head between them and human rows of the other label:
    what the model can tell apart, wherever it draws the line.
    """
    found = pq.read_table(evaluation / "predictions.parquet").to_pylist()
    said = {each["id"]: each for each in found}
    answers = [said[row.id]["prediction"] for row in rows]
    right = np.array(
        [
            bool(exact_match(answer, row.answers)) if row.sufficient else not answer
            for row, answer in zip(rows, answers, strict=True)
        ],
        dtype=float,
    )
    head = np.array([said[row.id]["sufficiency_head"] for row in rows])
    labels = np.array([bool(row.sufficient) for row in rows])
    human = np.array([row.method == "human" for row in rows])
    groups = resampling_groups(rows)[0]
    kinds: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        for kind in _kinds(row):
            kinds[kind].append(number)

    def bounds(numbers: Sequence[int], worth: Callable[[NDArray[np.intp]], float]) -> Any:
        at = np.array(numbers)
        names = [groups[number] for number in numbers]
        return intervals(lambda some: {"worth": worth(at[some])}, names)["worth"]

    result = []
    for kind, numbers in sorted(kinds.items()):
        others = np.flatnonzero(human & (labels != labels[numbers[0]])).tolist()
        result.append(
            {
                "kind": kind,
                "rows": len(numbers),
                "right": bounds(numbers, lambda at: float(right[at].mean())),
                "rank": bounds([*numbers, *others], lambda at: auroc(head[at], labels[at])),
            }
        )
    return result


def _kinds(row: Row) -> list[str]:
    if row.sufficient:
        return ["answered: all", f"answered: {row.method}"]
    origin = "human" if row.method == "human" else "derived"
    return ["declined: all", f"declined: {origin}", f"declined: {row.method}"]


def document(found: dict[str, Any]) -> str:
    """Markdown: the three sets, and what each was worth on every kind of test row."""
    sets = [
        (
            name,
            str(each["rows"]),
            f"{each['insufficient'] / each['rows']:.2f}",
            f"{each['tokens']:,}",
            f"{each['epochs']:.2f}",
        )
        for name, each in found["sets"].items()
    ]
    kinds = [each["kind"] for each in found["sets"][KINDS[0]]["measured"]]
    by_set = {
        name: {each["kind"]: each for each in values["measured"]}
        for name, values in found["sets"].items()
    }
    right, rank = (
        [
            (
                kind,
                str(by_set[KINDS[0]][kind]["rows"]),
                *(interval(by_set[name][kind][what]) for name in KINDS),
            )
            for kind in kinds
        ]
        for what in ("right", "rank")
    )
    return (
        "# Which methods pay\n\nMade by `python -m benchmarks.insufficient_methods --data DIR "
        "--out OUT --docs docs/insufficient_methods.md`; do not edit.\n\nThe same model, settings "
        "and number of tokens; test rows of documents that no training saw. *Answered* is exact "
        "match of answerable rows, "
        "*declined* the share of unanswerable ones that the model declined; 95 % intervals over "
        "contexts.\n\n"
        + table(("trained on", "rows", "insufficient", "tokens a pass", "passes"), sets)
        + "\n\n"
        + table(("test rows", "rows", *KINDS), right)
        + "\n\n## What the models can tell apart\n\nAUROC of the sufficiency head between these "
        "rows and human ones of the other label: above, a model that declines more looks better on "
        "one half and worse on the other; here no threshold is drawn.\n\n"
        + table(("test rows", "rows", *KINDS), rank)
        + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--docs", type=Path, help="write the page of the documentation here")
    parser.add_argument("--model", default="smollm2-135m")
    arguments = parser.parse_args()
    drawn = draw(read_fold(arguments.data, "train"), arguments.rows)
    tokenizer = load_tokenizer(arguments.model)[0]
    counted = {name: tokens(rows, tokenizer) for name, rows in drawn.items()}
    test = read_fold(arguments.data, "test") + contrasts(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_table(to_table(test), arguments.out / "test.parquet")
    sets: dict[str, Any] = {}
    for number, (name, rows) in enumerate(drawn.items()):
        folder = arguments.out / str(number)
        epochs = EPOCHS * min(counted.values()) / counted[name]
        if not (folder / "evaluation" / "metrics.json").exists():
            shutil.copytree(arguments.data, folder / "data", dirs_exist_ok=True)
            write_table(to_table(rows), folder / "data" / "train.parquet")
            settings = ("--epochs", round(epochs, 3), "--model", arguments.model)
            run("train", "run", "--data", folder / "data", "--out", folder / "run", *settings)
            file = arguments.out / "test.parquet"
            run(
                "abstain", "evaluate", folder / "run", "--data", file,
                "--out", folder / "evaluation",
            )  # fmt: skip
        sets[name] = {
            "rows": len(rows),
            "insufficient": sum(not row.sufficient for row in rows),
            "tokens": counted[name],
            "epochs": epochs,
            "measured": measured(folder / "evaluation", test),
        }
    write_json(arguments.out / "methods.json", {"sets": sets})
    text = document({"sets": sets})
    print(text)
    if arguments.docs is not None:
        write_text(arguments.docs, text)


if __name__ == "__main__":
    main()
