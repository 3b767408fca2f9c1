"""`train continual`: what later rounds have cost on earlier rounds' test rows."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from helpers import run_command

from abstain.answerer import load_answerer
from abstain.metrics import compute
from abstain.predict import predict
from curate.errors import UserError
from curate.record import read_fold, to_table, write_table
from train import trainer
from train.continual import Round, continual
from train.settings import TrainSettings


def trained(model: Path, data: Path, run: Path) -> Round:
    """Its phrase is one token, so that a random model learns it in a few steps."""
    values: dict[str, Any] = {"bfloat16": "off", "rank": 4, "epochs": 4, "learning_rate": 1e-2}
    trainer.run(data, run, TrainSettings(model=str(model), abstention_phrase="red", **values))
    return Round(run, data)


@pytest.fixture
def rounds(tiny_model: Path, small_set: Path, tmp_path: Path) -> list[Round]:
    """A first round that learns to decline everything, and one that learns to say "blue"."""
    found = []
    for number, label in enumerate((False, True), 1):
        data = tmp_path / f"data-{number}"
        shutil.copytree(small_set, data)
        for fold in ("train", "validation"):  # which picks the weights
            rows = [
                replace(row, sufficient=label, answers=["blue"] * label, answer_starts=[-1] * label)
                for row in read_fold(small_set, fold)
            ]
            write_table(to_table(rows), data / f"{fold}.parquet")
        found.append(trained(tiny_model, data, tmp_path / f"run-{number}"))
    return found


def test_what_a_round_has_cost_is_the_difference_on_the_earlier_rows(
    rounds: list[Round], tmp_path: Path
) -> None:
    found = continual(rounds, tmp_path / "out")
    first, second = found.rounds
    rows = [row for row in read_fold(rounds[0].data, "test") if row.sufficient is not None]
    by_hand = [
        compute(predict(load_answerer(str(one.run), calibrated=False), rows, "judge").raw)
        for one in rounds
    ]
    for metric in ("f1", "no_ans_accuracy"):
        assert [s["value"] for s in first.scores[metric]] == [one[metric] for one in by_hand]
        change = by_hand[1][metric] - by_hand[0][metric]
        assert first.change[metric]["value"] == pytest.approx(change)
    assert first.rows == len(rows) and first.learnt_later == 0
    assert len(second.scores["f1"]) == 1 and not second.change
    assert found.worst("no_ans_accuracy") == first.change["no_ans_accuracy"]["value"]
    assert "newest – own" in found.text()


def test_rows_that_a_later_round_learns_are_left_out(rounds: list[Round], tmp_path: Path) -> None:
    test = read_fold(rounds[0].data, "test")
    train = read_fold(rounds[1].data, "train")
    write_table(to_table([*train, test[0]]), rounds[1].data / "train.parquet")
    found = continual(rounds, tmp_path / "out")
    known = sum(row.context == test[0].context for row in test)
    assert found.rounds[0].learnt_later == known and found.rounds[0].rows == len(test) - known
    assert f"{known} test rows left out" in found.text()
    write_table(to_table([*train, *test]), rounds[1].data / "train.parquet")
    with pytest.raises(UserError, match="later rounds train on all contexts"):
        continual(rounds, tmp_path / "out")


def test_the_command_fails_above_its_limit_and_goes_on_where_it_was(
    rounds: list[Round], tmp_path: Path
) -> None:
    first, second = ((one.run, one.data) for one in rounds)
    out = tmp_path / "out"
    arguments = ["continual", "--round", *first, "--round", *second, "--out", out]
    done = run_command("train", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == [str(one.run) for one in rounds]
    assert found["rounds"][0]["change"]["no_ans_accuracy"]["value"] < -0.3
    before = (out / "1-by-2/predictions.parquet").stat().st_mtime_ns
    again = run_command("train", *arguments, "--limit", 0.05)
    assert again.returncode == 1 and "f1 has fallen by" in again.stderr
    assert "newest – own" in again.stdout  # what was measured is told all the same
    assert (out / "1-by-2/predictions.parquet").stat().st_mtime_ns == before
    assert run_command("train", *arguments, "--limit", 1).returncode == 0


def test_one_round_forgets_nothing(rounds: list[Round], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes two rounds"):
        continual(rounds[:1], tmp_path / "out")
