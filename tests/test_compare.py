"""Two evaluations side by side: paired differences see what separate intervals hide."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import run_command

from abstain.compare import compare
from curate.errors import UserError


def write(folder: Path, right: Any, ids: Any, confidence: Any) -> Path:
    folder.mkdir()
    rows = len(right)
    table = {
        "id": [f"r{i}" for i in ids],
        "group": [f"d{i // 5}" for i in ids],
        "em": np.asarray(right, float),
        "f1": np.asarray(right, float),
        "sufficient": [True] * rows,
        "abstained": [False] * rows,
        "answered": confidence >= 0.5,
        "confidence": confidence,
        "p_sufficient": confidence,
    }
    pq.write_table(pa.table(table), folder / "predictions.parquet")
    return folder


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """300 questions; the second run is right wherever the first is, and on every tenth besides."""
    draw = np.random.default_rng(0)
    ids = np.arange(300)
    first = np.repeat(draw.random(60) < 0.5, 5)
    second = first | (ids % 10 == 0)
    confidence = draw.random(300)
    shuffled = draw.permutation(300)
    return [
        write(tmp_path / "a", first, ids, confidence),
        write(tmp_path / "b", second[shuffled], ids[shuffled], confidence[shuffled]),
    ]


def test_a_paired_difference_is_found_where_intervals_overlap(two: list[Path]) -> None:
    found = compare(two, "raw").found
    one, other = (found["metrics"][str(folder)]["em"] for folder in two)
    assert one["high"] > other["low"]  # apart, one could not tell
    change = found["differences"][str(two[1])]["em"]
    assert change["value"] == pytest.approx(other["value"] - one["value"])
    assert 0 < change["low"] < change["value"] < change["high"]


def test_only_common_rows_count_and_the_routed_block_declines(
    two: list[Path], tmp_path: Path
) -> None:
    part = write(tmp_path / "c", np.ones(50, bool), np.arange(50), np.linspace(0, 1, 50))
    found = compare([*two, part], "routed").found
    assert found["rows"] == 50
    assert found["left_out"] == {str(two[0]): 250, str(two[1]): 250, str(part): 0}
    assert found["metrics"][str(part)]["coverage"]["value"] == pytest.approx(0.5)
    assert found["metrics"][str(part)]["em"]["value"] == pytest.approx(0.5)


def test_nothing_in_common_is_said(two: list[Path], tmp_path: Path) -> None:
    apart = write(tmp_path / "c", np.ones(5, bool), np.arange(900, 905), np.ones(5))
    with pytest.raises(UserError, match="no row in common"):
        compare([two[0], apart], "raw")


def test_the_command_marks_differences_that_are_sure(two: list[Path]) -> None:
    done = run_command("abstain", "compare", *two, "--block", "raw")
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("em ")]
    assert line.endswith("*")
    page = two[0] / "compare.html"
    done = run_command("abstain", "compare", *two, "--report", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 2 and "auroc_correct" in text
    told = json.loads(run_command("abstain", "compare", *two, "--json").stdout)
    assert told["block"] == "routed"
    for fewer in ([two[0]], [two[0], two[0]]):
        done = run_command("abstain", "compare", *fewer)
        assert done.returncode == 1 and "two different folders" in done.stderr
    pq.write_table(pa.table({"id": ["a"]}), two[0] / "predictions.parquet")
    done = run_command("abstain", "compare", *two)
    assert done.returncode == 1 and "has no column 'group'" in done.stderr
