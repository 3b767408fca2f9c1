"""`train search`: what it varies, how it goes on after a kill, and what it says in the end."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from helpers import BIN, ENVIRONMENT, run_command
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from curate.errors import UserError
from train import search as searching
from train.search import Search, search
from train.settings import TrainSettings
from train.space import holds, space_of


def settings(model: Path, **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "rank": 4, "epochs": 1, "evaluations": 2, **given}
    return TrainSettings(model=str(model), **values)


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
    study = searching._study(plan)
    for rate in (1e-2, 2e-2, 3e-2, 4e-2, 1e-7):
        study.enqueue_trial({"learning_rate": rate, "seed": 1})
    found = search(plan, 5)
    last = found.tried[-1]
    assert last.state == "stopped early" and "above the median" in last.note
    assert not (tmp_path / "trials").joinpath("training.json").exists()


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
    before = (half / "checkpoint/last.pt").stat().st_mtime_ns
    done = run_command("train", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert sorted(one["settings"]["rank"] for one in found["tried"]) == [2, 3]
    assert (half / "training.json").exists()  # that trial has come to its end, in its own folder
    assert (half / "checkpoint/last.pt").stat().st_mtime_ns >= before
    study = optuna.load_study(
        study_name="search", storage=f"sqlite:///{tmp_path / 'out/study.sqlite'}"
    )
    assert [trial.state.name for trial in study.trials].count("COMPLETE") == 2
    # Asked again, it has nothing to do; asked something else, it does not mix the two.
    assert json.loads(run_command("train", *arguments, "--json").stdout) == found
    other = run_command("train", *arguments[:-1], "em")
    assert other.returncode == 1 and "holds a search with another metric" in other.stderr


def test_a_metric_that_there_is_not_is_said(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    base = settings(tiny_model)
    with pytest.raises(UserError, match="unknown; there are loss"):
        search(Search(small_set, tmp_path, base, space_of([], base), "f2"), 1)
