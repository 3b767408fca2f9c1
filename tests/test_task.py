"""The recipe's task: which rows it admits, and that the form of a question tells no label."""

from pathlib import Path

import pytest
from curate_helpers import curate, make_row, splits, stations, write_json, write_recipe

from curate.task import admit

CONTEXT = "The mill of Corby was built in 1893 by Ada Low, who came from the north of the county."
OPEN = make_row("Who built the mill?", CONTEXT, ["Ada Low"])
LONG = make_row(
    "Who built it?", CONTEXT, ["1893 by Ada Low, who came from the north of the county"]
)
WORDS = make_row("Who?", CONTEXT, ["a woman"], answer_starts=[-1])
YES = make_row("Was it built by Ada?", CONTEXT, ["yes"], answer_starts=[-1])
NO_ANSWER = make_row("When did it burn down?", CONTEXT)
YES_NO_ANSWER = make_row("Did it burn down?", CONTEXT)
CHOICE = make_row("Is it old or new?", CONTEXT, ["old"], answer_starts=[-1])
LATER = make_row("And when?", CONTEXT, ["1893"], document="talk",
                 history=[{"role": "user", "content": "Who built it?"}])  # fmt: skip
FIRST = make_row("Who built it?", CONTEXT, ["Ada Low"], document="talk")
ROWS = [OPEN, LONG, WORDS, YES, NO_ANSWER, YES_NO_ANSWER, CHOICE, LATER, FIRST]


@pytest.mark.parametrize(
    ("task", "admitted"),
    [
        ("open", ROWS),
        ("closed", [YES, YES_NO_ANSWER]),
        ("fact", [OPEN, NO_ANSWER, LATER, FIRST]),
        ("conversational", [LATER, FIRST]),
    ],
)
def test_each_task_admits_its_own_rows(task: str, admitted: list[object]) -> None:
    kept, gone = admit(ROWS, task)
    assert kept == admitted
    assert len(kept) + len(gone) == len(ROWS) and all(one.detail for one in gone)


def test_what_a_task_does_not_admit_is_kept_with_its_reason(tmp_path: Path) -> None:
    write_json(tmp_path / "s.json", stations(8))
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "squad", "path": "s.json"}, task="fact")
    done = curate("build", recipe, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    kept = [row for rows in splits(tmp_path / "out").values() for row in rows]
    assert kept and all(not row.question.startswith("Is ") for row in kept)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "squad", "path": "s.json"}, task="closed")
    done = curate("build", recipe, "--out", tmp_path / "none")
    assert done.returncode == 1 and "no row is left; dropped: not_closed" in done.stderr
