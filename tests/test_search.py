"""`train search`: what it varies, how it goes on after a kill, and what it says in the end."""

import json
import os
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
import yaml
from helpers import BIN, ENVIRONMENT, run_command
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from curate.errors import UserError
from curate.record import read_fold, rows_digest, to_table, write_table
from train import search as searching
from train.search import Search, search
from train.settings import TrainSettings
from train.space import holds, space_of


def settings(model: Path, **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "rank": 4, "epochs": 1, "evaluations": 2, **given}
    return TrainSettings(model=str(model), **values)


FINISHED = "training.json"
MARK = 10**9  # tokens that nobody has read


def rows_of(data: Path) -> dict[str, str]:
    return {fold: rows_digest(read_fold(data, fold)) for fold in ("train", "validation", "test")}


def mark_checkpoint(path: Path) -> None:
    """So that who goes on from it is known by what he counts on."""
    stored = torch.load(path, weights_only=True)
    stored["progress"]["tokens"] += MARK
    torch.save(stored, path)


def test_a_space_is_read_as_the_settings_are_typed() -> None:
    found = space_of(
        ["learning-rate=1e-4..1e-2", "rank=4..8", "dropout=0,0.1", "optimizer=adam,adamw"],
        TrainSettings(),
    )
    assert found == {
        "learning_rate": FloatDistribution(1e-4, 1e-2, log=True),
        "rank": IntDistribution(4, 8),
        "dropout": CategoricalDistribution([0.0, 0.1]),
        "optimizer": CategoricalDistribution(["adam", "adamw"]),
    }
    assert holds(found, TrainSettings(rank=8, dropout=0.1))
    assert not holds(found, TrainSettings(rank=16)) and not holds(found, TrainSettings(dropout=0.2))


@pytest.mark.parametrize("method", ["lora", "low-lr", "prefix"])
def test_the_usual_space_holds_the_defaults(method: Any) -> None:
    defaults = TrainSettings(method=method)
    found = space_of([], defaults)
    assert holds(found, defaults)
    assert ("rank" in found) == ("dropout" in found) == (method == "lora")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rank", "NAME=LOW..HIGH"),
        ("ranks=1,2", "no setting to search; there are"),
        ("rank=8..4", "a range rises"),
        ("rank=0,4", "greater than or equal to 1"),
        ("rank=a,b", "no number"),
        ("rank=8.5,9", "valid integer"),
        ("optimizer=adam..adamw", "list the choices"),
        ("optimizer=adam,sgd", "sgd"),
        ("model=a,b", "no setting to search"),
    ],
)
def test_what_cannot_be_varied_is_said(text: str, told: str) -> None:
    with pytest.raises(UserError, match=told.replace(".", r"\.")):
        space_of([text], TrainSettings())


def test_a_search_finds_the_better_rate_and_says_what_mattered(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model, learning_rate=1e-5)  # at which nothing is learnt
    # A fifth choice cannot be trained: it fails, and the others go on.
    space = space_of(["learning_rate=1e-5,1e-4,1e-3,1e-2", "kl=0,1"], base)
    found = search(Search(small_set, tmp_path, base, space, "loss", "grid"), 8)
    assert found.best is not None and found.best.value is not None
    assert found.best.settings["learning_rate"] == 1e-2 and found.best.value < found.defaults
    states = [one.state for one in found.tried]
    assert states.count("failed") == 4 and "complete" in states
    assert all("replay" in one.note for one in found.tried if one.state == "failed")
    assert found.gains["f1"]["value"] is not None
    # The best settings train again to what the search has found.
    stored = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert TrainSettings.model_validate(stored).rate == 1e-2
    assert json.loads((tmp_path / "search.json").read_text())["best"]["value"] == found.best.value
    assert "against the defaults on the test split" in found.text()


def test_a_hopeless_trial_is_stopped_early(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model, evaluations=4, patience=99)
    space = space_of(["learning_rate=1e-2,2e-2,3e-2,4e-2,1e-7", "seed=1"], base)
    plan = Search(small_set, tmp_path, base, space, "loss", "grid")
    study = searching._study(plan, rows_of(small_set))
    for rate in (1e-2, 2e-2, 3e-2, 4e-2, 1e-7):
        study.enqueue_trial({"learning_rate": rate, "seed": 1})
    found = search(plan, 5)
    last = found.tried[-1]
    assert last.state == "stopped early" and "above the median" in last.note
    # What was stopped is no run: it was not even trained to its end.
    whole = [folder for folder in (tmp_path / "trials").iterdir() if (folder / FINISHED).exists()]
    assert len(whole) == 4 and len(list((tmp_path / "trials").iterdir())) == 5


def test_killed_it_goes_on_with_the_trial_that_it_was_in(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({"bfloat16": "off", "epochs": 20, "checkpoint_every": 1}))
    arguments = [
        "search", "--data", small_set, "--out", tmp_path / "out", "--model", tiny_model,
        "--config", config, "--vary", "rank=2,3", "--sampler", "grid", "--trials", 2,
        "--metric", "f1",
    ]  # fmt: skip
    command = [str(BIN / "train"), *map(str, arguments)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=ENVIRONMENT)
    trials = tmp_path / "out/trials"
    end = time.monotonic() + 300
    while not list(trials.glob("*/checkpoint/last.pt")):
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (half,) = trials.iterdir()
    mark_checkpoint(half / "checkpoint/last.pt")
    done = run_command("train", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(one["settings"]["rank"] for one in found["tried"]) == [2, 3]
    # That trial has come to its end, in its own folder, from where it was.
    assert json.loads((half / FINISHED).read_text())["progress"]["tokens"] > MARK
    study = optuna.load_study(
        study_name="search", storage=f"sqlite:///{tmp_path / 'out/study.sqlite'}"
    )
    assert [trial.state.name for trial in study.trials].count("COMPLETE") == 2
    # Asked again, it has nothing to do; asked something else, it does not mix the two.
    assert json.loads(run_command("train", *arguments, "--json").stdout) == found
    other = run_command("train", *arguments[:-1], "em")
    assert other.returncode == 1 and "holds a search with other metric" in other.stderr


def test_a_grid_is_whole_unless_a_number_says_otherwise(
    small_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(searching, "_judged", lambda *_: {"loss": 1.0})
    base = settings(tiny_model)
    space = space_of(["rank=1,2,3,4,5", "seed=1,2,3,4,5"], base)
    few = search(Search(small_set, tmp_path / "few", base, space, "loss", "grid"), 3)
    assert len(few.tried) == 3 and "of the 25 points of this grid, 3 are tried" in caplog.text
    assert len(search(Search(small_set, tmp_path / "all", base, space, "loss", "grid")).tried) == 25


def test_a_trial_in_which_the_process_ends_each_time_is_given_up(
    small_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judged(plan: Search, chosen: TrainSettings, *_: Any) -> dict[str, float]:
        if chosen.rank == 2:
            raise KeyboardInterrupt  # stands in for a process that is killed
        return {"loss": -float(chosen.rank)}  # nothing beats the defaults

    monkeypatch.setattr(searching, "_judged", judged)
    base = settings(tiny_model)
    plan = Search(small_set, tmp_path, base, space_of(["rank=2,3,4"], base), "loss", "grid")
    deaths = 0
    found = None
    while found is None:
        try:
            found = search(plan)
        except KeyboardInterrupt:
            deaths += 1
    assert deaths == searching.DEATHS
    ended = {one.settings.get("rank"): one for one in found.tried}
    assert {"3", "4"} <= {str(rank) for rank in ended} and found.best is not None
    notes = [one.note for one in found.tried if one.state == "failed"]
    assert notes == ["the process ended in it 3 times"]


def test_defaults_that_no_trial_beats_stay_the_best(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """Though they are no point of the space, and so no trial."""
    base = settings(tiny_model, learning_rate=1e-2)
    space = space_of(["learning_rate=1e-7,1e-6"], base)
    plan = Search(small_set, tmp_path / "out", base, space, "loss", "grid")
    found = search(plan, 9)
    assert not found.beaten and not found.gains and len(found.tried) == 2
    assert "nothing to change" in found.text()
    stored = yaml.safe_load((tmp_path / "out/best.yaml").read_text())
    assert TrainSettings.model_validate(stored).rate == 1e-2
    # A grid has an end; moved elsewhere, what was found is found again.
    (tmp_path / "out").rename(tmp_path / "moved")
    assert search(replace(plan, out=tmp_path / "moved"), 9) == found


def test_a_metric_without_a_value_is_said_and_not_tried_again(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model, learning_rate=1e-7)  # it says nothing right
    space = space_of(["rank=2,3"], base)
    plan = Search(small_set, tmp_path, base, space, "auroc_correct", "grid")
    found = search(plan, 2)
    assert found.defaults is None and found.best is None
    assert [one.note for one in found.tried] == [
        "auroc_correct is undefined on what this run says"
    ] * 2
    assert "nothing is recommended" in found.text() and "undefined" in found.text()
    assert "NaN" not in (tmp_path / "search.json").read_text()
    assert search(plan, 2) == found


def test_rows_that_have_changed_are_another_search(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_set, data)
    base = settings(tiny_model)
    plan = Search(data, tmp_path / "out", base, space_of(["rank=4"], base), "loss", "grid")
    first = search(plan, 1)
    assert first.best is not None
    write_table(to_table(read_fold(data, "test")[1:]), data / "test.parquet")
    with pytest.raises(UserError, match="other rows"):
        search(plan, 1)


def test_without_test_rows_the_best_is_what_validation_chose(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(small_set, data)
    write_table(to_table([]), data / "test.parquet")
    base = settings(tiny_model, learning_rate=1e-7)
    space = space_of(["learning_rate=1e-2"], base)
    found = search(Search(data, tmp_path / "out", base, space, "loss", "grid"), 1)
    assert found.beaten and not found.gains
    assert "without a test split nobody knows" in found.text()


def test_losses_of_different_rewards_are_not_compared(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model)
    space = space_of(["abstain_reward=0,0.5"], base)
    with pytest.raises(UserError, match="another loss for every abstain_reward"):
        search(Search(small_set, tmp_path, base, space, "loss", "grid"), 2)


def test_a_metric_that_there_is_not_is_said(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model)
    with pytest.raises(UserError, match="unknown; there are loss"):
        search(Search(small_set, tmp_path, base, space_of([], base), "f2"), 1)
