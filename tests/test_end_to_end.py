"""A policy certified as a whole: units that are looked at several times, and the command."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import run_command
from hypothesis import given, settings
from hypothesis import strategies as st

from abstain.policy import Bm25Retriever
from abstain.retrieve import Bm25
from abstain.router import Threshold
from abstain.run import policy_hash, read_run_file
from abstain.threshold import Goal, Guarantee, StagedUnits, candidates, certify
from curate.errors import UserError
from curate.record import read_fold

_levels = st.sampled_from([-np.inf, 0.2, 0.4, 0.6, 0.8])
_unit = st.lists(st.tuples(_levels, st.booleans()), min_size=3, max_size=3)


@given(st.lists(_unit, max_size=30), st.floats(0, 1))
def test_the_first_look_that_passes_answers(
    drawn: list[list[tuple[float, bool]]], threshold: float
) -> None:
    confidence = np.array([[sure for sure, _ in unit] for unit in drawn]).reshape(-1, 3)
    right = np.array([[good for _, good in unit] for unit in drawn], dtype=bool).reshape(-1, 3)
    units = StagedUnits(confidence, right)
    answered = [next((good for sure, good in u if sure >= threshold), None) for u in drawn]
    given_ = [good for good in answered if good is not None]
    assert units.count(threshold) == (len(given_), given_.count(False))
    values, accepted, wrong = units.curve()
    assert values == sorted(set(confidence[np.isfinite(confidence)]), reverse=True)
    assert [units.count(value) for value in values] == list(zip(accepted, wrong, strict=True))
    assert accepted == sorted(accepted)


def simulated(count: int, draw: np.random.Generator) -> StagedUnits:
    """Questions whose second look is better, and a third that is worse than it believes."""
    confidence = draw.uniform(size=(count, 3))
    honest = draw.uniform(size=(count, 3)) < confidence * np.array([0.9, 1.0, 0.7])
    reached = draw.uniform(size=(count, 3)) < np.array([0.9, 0.6, 0.5])
    return StagedUnits(np.where(reached, confidence, -np.inf), honest)


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm"])
def test_the_promise_holds_for_a_policy_that_looks_several_times(procedure: Any) -> None:
    draw = np.random.default_rng(0)
    goal = Goal(0.3, 0.1, procedure)
    everyone = simulated(200_000, draw)
    broken = made = 0
    for _ in range(400):
        thresholds = candidates(simulated(300, draw), 300, goal)
        found = certify(thresholds, simulated(300, draw), goal)
        if isinstance(found, Guarantee):
            made += 1
            accepted, wrong = everyone.count(found.threshold)
            broken += wrong / accepted > goal.risk
    # Of 400 tries, no more than δ plus three standard errors break it.
    assert made > 100 and broken <= 400 * 0.1 + 3 * np.sqrt(400 * 0.1 * 0.9)


def test_procedures_that_need_monotone_errors_refuse() -> None:
    units = simulated(20, np.random.default_rng(0))
    with pytest.raises(UserError, match="use fixed-sequence or holm"):
        certify([0.5], units, Goal(0.1, 0.1, "sgr"))


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 5))
def test_bm25_finds_the_passage_that_shares_words(tmp_path_factory: Any, count: int) -> None:
    folder = tmp_path_factory.mktemp("documents")
    (folder / "towns.md").write_text("The gate of Arden is red.\n\nThe gate of Corby is blue.")
    (folder / "page.html").write_text(
        "<html><body><main><h1>Pass</h1><p>The day pass costs six pounds.</p></main></body></html>"
    )
    retriever = Bm25(Bm25Retriever(kind="bm25", folder=folder, passages=count))
    found = retriever.find("What does the day pass cost?", "")
    assert "six pounds" in found.passages[0] and found.sources[0] == "page.html"
    assert len(found.passages) <= count
    assert retriever.find("???", "").passages == ()


def promise_one(run: Path) -> None:
    """A guarantee for the run as it has been calibrated: so small a model earns none."""
    stored = read_run_file(run)
    assert stored.calibration is not None
    guarantee: dict[str, Any] = {"target_risk": 0.9, "delta": 0.05, "certifications": 1}
    hashed = policy_hash(run, stored.contract, stored.calibration)
    promised = Threshold(stored.calibration.threshold.value, {**guarantee, "policy_hash": hashed})
    stored.calibration = replace(stored.calibration, threshold=promised)
    stored.write(run)


def test_a_policy_is_certified_with_its_documents_and_covers_nothing_else(
    tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    documents = tmp_path / "documents"
    documents.mkdir()
    contexts = dict.fromkeys(row.context for row in read_fold(data_set, "calibration"))
    (documents / "towns.txt").write_text("\n\n".join(contexts))
    (tmp_path / "policy.yaml").write_text(
        "name: look it up\n"
        "rules:\n  - {action: answer}\n  - {action: retrieve}\n  - {action: escalate}\n"
        "retriever: {kind: bm25, folder: documents, passages: 2}\n"
    )
    policy = ("--policy", tmp_path / "policy.yaml")
    calibrate = ("abstain", "calibrate", run, "--data", data_set, "--target-risk", 0.9)
    done = run_command(*calibrate, "--again", *policy, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["routing"]
    promise_one(run)

    def promised() -> str:
        done = run_command("abstain", "route", tmp_path / "policy.yaml", "--run", run, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["guarantee"])

    assert "at most 90% are wrong" in promised()
    # The threshold alone is another policy, and so is this one on other documents.
    asked = ("abstain", "ask", run, "What colour is the gate?", "--context", "-", "--json")
    alone = json.loads(run_command(*asked, input="A gate.").stdout)[0]
    assert alone["guarantee"] == "no guarantee"
    whole = json.loads(run_command(*asked, *policy, input="A gate.").stdout)[0]
    assert "at most 90% are wrong" in whole["guarantee"]
    assert whole["action"] in ("answer", "escalate")
    assert len(whole["looks"]) == 2 or whole["action"] == "answer"
    (documents / "new.txt").write_text("There is a new gate.")
    assert promised() == "no guarantee"


def test_nothing_is_certified_while_what_a_policy_asks_is_down(
    tiny_run: Path, data_set: Path, tmp_path: Path
) -> None:
    (tmp_path / "policy.yaml").write_text(
        "rules:\n  - {action: answer}\n  - {action: retrieve}\n"
        "retriever: {kind: http, url: 'http://127.0.0.1:9/find'}\n"
    )
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    calibrate = ("abstain", "calibrate", run, "--data", data_set, "--again")
    done = run_command(*calibrate, "--policy", tmp_path / "policy.yaml")
    assert done.returncode == 1 and "certified with all that it asks" in done.stderr


def test_a_second_model_is_calibrated_on_its_own_answers(
    tiny_run: Path, data_set: Path, address: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run)
    (tmp_path / "policy.yaml").write_text(
        "rules:\n  - {action: answer}\n  - {action: second_model}\n"
        f"second_model: {{url: '{address}', model: any}}\n"
    )
    calibrate = ("abstain", "calibrate", run, "--data", data_set, "--again", "--json")
    done = run_command(*calibrate, "--policy", tmp_path / "policy.yaml", "--target-risk", 0.3)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["second"] is not None and found["routing"]
    asked = ("abstain", "ask", run, "What colour is the gate of Arden?", "--context", "-")
    context = "The gate of Arden is painted red. It was built in 1500."
    done = run_command(*asked, "--policy", tmp_path / "policy.yaml", "--json", input=context)
    [said] = json.loads(done.stdout)
    assert [one["model"] for one in said["looks"]] in (["own", "second"], ["own"])
    assert said["looks"][-1]["confidence"] is not None
