"""Signals of an OpenAI-compatible server: a real llama.cpp with the embedded model's weights."""

import json
from pathlib import Path
from typing import Any

import pytest
from helpers import run_command

from abstain.answerer import Answerer
from abstain.endpoint import Endpoint
from abstain.evidence import Evidence
from abstain.predict import answer_all
from abstain.signals import SIGNALS, available, matrix
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, read_fold, to_table, write_table

CONTEXT = "The day pass costs £6 and is valid for 24 hours. It is personal and may not be lent."
ROWS = [
    Row("How much is the day pass?", CONTEXT, answers=["£6"], sufficient=True),
    Row("For how many hours is the pass valid?", CONTEXT, answers=["24"], sufficient=True),
    Row("Who designed the day pass?", CONTEXT, sufficient=False),
]


def test_its_signals_are_those_of_the_same_model_in_this_process(
    address: str, real_model: Any
) -> None:
    evidence = Evidence(p_true=True, samples=3)
    remote, local = Endpoint(address, Contract()), Answerer(real_model, Contract(), None)
    remote.gather(evidence)
    local.gather(evidence)
    there, here = answer_all(remote, ROWS), answer_all(local, ROWS)
    names = available(there)
    assert set(names) >= {
        "p_abstain_first",
        "mean_log_likelihood",
        "least_token",
        "greatest_entropy",
        "p_true",
        "self_consistency",
        "cluster_entropy",
        "context_support",
    }
    assert "sufficiency_head" not in names and "mc_mean_log_likelihood" not in names
    # Quantised arithmetic picks other words now and then; where the words agree, so do the numbers.
    same = [i for i in range(len(ROWS)) if there[i].text == here[i].text]
    assert same
    exact = ["mean_log_likelihood", "least_token", "p_true"]
    one = matrix([ROWS[i] for i in same], [there[i] for i in same], exact)
    other = matrix([ROWS[i] for i in same], [here[i] for i in same], exact)
    assert one == pytest.approx(other, abs=0.5)
    for answer in there:
        assert answer.samples is not None and len(answer.samples) == 3


def test_a_server_is_evaluated_like_a_model(address: str, tmp_path: Path) -> None:
    rows = [
        Row(r.question, r.context, answers=r.answers, sufficient=r.sufficient, id=f"r{i}")
        for i, r in enumerate(ROWS)
    ]
    write_table(to_table(rows), tmp_path / "rows.parquet")
    done = run_command(
        *("abstain", "evaluate", address, "--data", tmp_path / "rows.parquet"),
        *("--out", tmp_path / "out", "--signals", "free,p_true", "--json"),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {line["name"] for line in found["by_signal"]} >= {"p_true", "p_abstain_first"}
    assert found["milliseconds_an_answer"] > 0
    assert (tmp_path / "out" / "report.html").exists()


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(UserError, match=r"http://127\.0\.0\.1:9/v1: cannot be reached"):
        Endpoint("http://127.0.0.1:9/v1", Contract())


def test_a_servers_model_is_calibrated_and_asked_like_a_run(
    address: str, data_set: Path, tmp_path: Path
) -> None:
    remote, data = tmp_path / "remote", tmp_path / "data"
    done = run_command("abstain", "connect", address, "--out", remote)
    assert done.returncode == 0, done.stderr
    assert run_command("abstain", "connect", address, "--out", remote).returncode == 1
    # A part of the rows: the server answers one in a second.
    data.mkdir()
    for fold, count in (("train", 4), ("validation", 24), ("calibration", 12), ("test", 4)):
        rows = read_fold(data_set, fold)[:count]
        write_table(to_table(rows), data / f"{fold}.parquet")
    calibrate = ("abstain", "calibrate", remote, "--data", data, "--target-risk", 0.5, "--json")
    done = run_command(*calibrate)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["probe"] is None and set(found["correct"]["signals"]) <= set(SIGNALS)
    asked = ("abstain", "ask", remote, "How much is the day pass?", "--context", "-", "--json")
    [said] = json.loads(run_command(*asked, input=CONTEXT).stdout)
    assert said["threshold"] == found["threshold"] and said["confidence"] is not None
    assert (remote / "decisions.jsonl").exists()
    (remote / "endpoint.json").write_text("{}")
    done = run_command(*asked, input=CONTEXT)
    assert done.returncode == 1 and "no address and model in it" in done.stderr
