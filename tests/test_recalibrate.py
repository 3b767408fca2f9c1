"""`abstain drift`, `recalibrate` and `queue` on a real run and a real queue."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from helpers import run_command
from label_studio import Studio, by_task, judge, wait_until
from serving import serving

from abstain.queue import Item, Queue, Reply
from abstain.router import Threshold
from abstain.run import policy_hash, read_run_file
from curate.record import digest, read_rows


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that promises 10 %, as so small a model never could by itself."""
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    stored = read_run_file(copy)
    assert stored.calibration is not None
    calibration = replace(stored.calibration, threshold=Threshold(0.4))
    hashed = policy_hash(copy, stored.contract, calibration)
    promise = {"target_risk": 0.1, "delta": 0.05, "certifications": 1, "policy_hash": hashed}
    stored.calibration = replace(calibration, threshold=Threshold(0.4, promise))
    stored.write(copy)
    return copy


def fill(state: Path, run: Path, count: int, risk: float) -> Queue:
    """Audits as the server would have put them there, answered by people."""
    stored = read_run_file(run)
    assert stored.calibration is not None
    policy = digest(policy_hash(run, stored.contract, stored.calibration), "")
    draw = random.Random(5)
    state.mkdir()
    queue = Queue(state / "queue.sqlite")
    for n in range(count):
        confidence = draw.uniform(0.3, 1.0)
        look = {"text": "red", "abstained": False, "head_declines": False, "may_answer": True}
        decision = {"action": "answer", "looks": [{**look, "confidence": confidence}]}
        queue.put(
            Item(f"i{n}", "What colour?", f"Gate {n} is red.", False, True, 0.1, decision, policy,
                 created=float(n))
        )  # fmt: skip
        right = draw.random() > risk * (1.3 - confidence)
        queue.answer(f"i{n}", "ann", Reply(True, ("red" if right else "blue",)))
    return queue


def test_a_promise_that_fails_is_found_and_made_anew_on_audits(run: Path, tmp_path: Path) -> None:
    fill(tmp_path / "service", run, 500, risk=0.5)
    at = ("--at", tmp_path / "service", "--json")
    done = run_command("abstain", "drift", run, *at)
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)
    assert found["state"] == "refuted" and found["low"] > 0.1 and found["tighten_to"] > 0.4
    done = run_command("abstain", "recalibrate", run, *at, "--target-risk", 0.4)
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    assert made["before"] == 0.4 and made["guarantee"]["accepted"] > 50
    stored = read_run_file(run).calibration
    assert stored is not None and stored.threshold.value == made["threshold"]
    assert stored.threshold.guarantee is not None  # it covers the run as it is now
    # Those audits were of the run as it was; trying again on them is told.
    done = run_command("abstain", "recalibrate", run, *at, "--target-risk", 0.2)
    assert done.returncode == 1 and "0 audited contexts of this run as it is" in done.stderr


def test_too_few_audits_certify_nothing_and_change_nothing(run: Path, tmp_path: Path) -> None:
    fill(tmp_path / "service", run, 60, risk=0.5)
    before = read_run_file(run).calibration
    at = ("--at", tmp_path / "service")
    done = run_command("abstain", "recalibrate", run, *at, "--target-risk", 0.01)
    assert done.returncode == 1 and "the threshold stays as it was" in done.stderr
    after = read_run_file(run)
    assert after.calibration == before and len(after.ledger.entries) > 0
    done = run_command("abstain", "recalibrate", run, *at, "--target-risk", 0.02)
    assert done.returncode == 1 and "--again" in done.stderr


def waiting(state: Path) -> Queue:
    state.mkdir()
    queue = Queue(state / "queue.sqlite")
    for n in range(4):
        decision: dict[str, Any] = {"action": "escalate", "looks": []}
        queue.put(
            Item(f"i{n}", f"Where is gate {n}?", f"Gate {n} stands at mile {n}.", True, False, 1.0,
                 decision, created=float(n))
        )  # fmt: skip
    return queue


def test_people_answer_on_the_command_line_and_it_comes_back_as_rows(tmp_path: Path) -> None:
    queue = waiting(tmp_path / "service")
    at = ("--at", tmp_path / "service")
    listed = json.loads(run_command("abstain", "queue", "list", *at, "--json").stdout)
    assert [one["id"] for one in listed["items"]] == ["i0", "i1", "i2", "i3"]
    answer = ("abstain", "queue", "answer", *at, "--person", "ann")
    assert run_command(*answer, "i0", "--text", "mile 0").returncode == 0
    assert run_command(*answer, "i1", "--no", "evidence_missing").returncode == 0
    done = run_command(*answer, "i1", "--text", "red")
    assert done.returncode == 1 and "is answered already" in done.stderr
    done = run_command(*answer, "i2", "--no", "whim")
    assert done.returncode == 2 and "there is no reason 'whim'" in done.stderr
    done = run_command(*answer, input="mile 2\n?\n")  # i2, then leave i3 for later
    assert "1 answered" in done.stdout, done.stderr
    assert queue.counts() == {"answered": 3, "waiting": 1}
    reject = ("abstain", "queue", "reject", "i3", "--why", "spam", *at)
    assert run_command(*reject).returncode == 0
    out = tmp_path / "rows.parquet"
    done = run_command("abstain", "queue", "export", *at, "--out", out, "--calibration-share", 0)
    assert done.returncode == 0, done.stderr
    rows = read_rows(out)
    assert [(row.sufficient, row.reason) for row in rows] == [
        (True, ""),
        (False, "evidence_missing"),
        (True, ""),
    ]
    shown = run_command("curate", "show", out, "-n", 3)
    assert shown.returncode == 0 and "Where is gate 0?" in shown.stdout


def test_annotators_answer_the_queue_in_label_studio(label_studio: Studio, tmp_path: Path) -> None:
    queue = waiting(tmp_path / "service")
    at = ("--at", tmp_path / "service", "--project", "queue", "--url", label_studio.address)
    environment = label_studio.environment()
    push = ("abstain", "queue", "push", *at, "--json")
    done = run_command(*push, env=environment)
    assert done.returncode == 0 and json.loads(done.stdout)["added"] == 4, done.stderr
    assert json.loads(run_command(*push, env=environment).stdout)["unchanged"] == 4
    owner = label_studio.owner
    tasks = {t["data"]["question"]: t for t in by_task(owner.project("queue"), owner).values()}
    judge(label_studio.person("ann"), tasks["Where is gate 0?"], False)
    judge(label_studio.person("ben"), tasks["Where is gate 1?"], True)
    judge(label_studio.person("ann"), tasks["Where is gate 2?"], False)
    judge(label_studio.person("ben"), tasks["Where is gate 2?"], True)
    done = run_command("abstain", "queue", "pull", *at, "--json", env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["answered"], found["undecided"]) == (2, 1)
    first, second = queue.get("i0"), queue.get("i1")
    assert first is not None and first.reply is not None and first.reply.sufficient is False
    assert second is not None and second.reply is not None and second.reply.answers
    assert queue.counts() == {"answered": 2, "waiting": 2}


def test_annotators_answers_reach_a_running_server_as_they_are_made(
    label_studio: Studio, tiny_run: Path, tmp_path: Path
) -> None:
    state = tmp_path / "service"
    queue = waiting(state)
    push = ("abstain", "queue", "push", "--at", state, "--project", "live")
    environment = label_studio.environment()
    assert run_command(*push, env=environment).returncode == 0
    owner = label_studio.owner
    tasks = {t["data"]["question"]: t for t in by_task(owner.project("live"), owner).values()}
    live = ("--label-studio", "live")
    with serving(tiny_run, state, "rules: [{action: answer}]\n", *live, **environment) as server:
        judge(label_studio.person("ann"), tasks["Where is gate 3?"], True)
        wait_until(lambda: queue.counts().get("answered") == 1)
        hooks = owner.json("GET", "/api/webhooks/")
        assert f"{server.address}/webhooks/label-studio" in [hook["url"] for hook in hooks]
        forged = httpx.post(f"{server.address}/webhooks/label-studio", json={})
        assert forged.status_code == 401
    assert owner.json("GET", "/api/webhooks/") == []
    item = queue.get("i3")
    assert item is not None and item.reply is not None and item.reply.answers == ("mile 3",)
