"""The two-action router: its rules, and the log of every decision."""

import json
from pathlib import Path

import pytest

from abstain.answer import Answer
from abstain.router import Policy, decide, log_decision
from curate.errors import UserError

GUARANTEE = {"target_risk": 0.1, "delta": 0.05, "certifications": 1}


@pytest.mark.parametrize(
    ("abstained", "confidence", "threshold", "action", "rule"),
    [
        (True, 0.99, 0.5, "decline", "model_abstained"),
        (True, 0.99, None, "decline", "model_abstained"),
        (False, 0.01, None, "answer", "uncalibrated"),
        (False, 0.5, 0.5, "answer", "at_or_above_threshold"),
        (False, 0.49, 0.5, "decline", "below_threshold"),
    ],
)
def test_each_rule(
    abstained: bool, confidence: float, threshold: float | None, action: str, rule: str
) -> None:
    decision = decide(abstained, confidence, Policy(threshold))
    assert (decision.action, decision.rule) == (action, rule)
    assert (decision.confidence, decision.threshold) == (confidence, threshold)


def test_a_threshold_says_whether_it_carries_a_guarantee() -> None:
    assert "no guarantee" in decide(False, 0.9, Policy(0.5)).why
    why = decide(False, 0.9, Policy(0.5, GUARANTEE)).why
    assert "at most 10% are wrong, with probability 95%" in why and "not kept" not in why
    again = Policy(0.5, {**GUARANTEE, "certifications": 3}).promise()
    assert "not kept: it is number 3 tried on the same rows" in again


def test_decisions_are_appended_with_all_that_they_turned_on(tmp_path: Path) -> None:
    log = tmp_path / "new" / "decisions.jsonl"
    for confidence in (0.9, 0.1):
        decision = decide(False, confidence, Policy(0.5))
        answer = Answer("3 m", False, (-0.1,), reason="evidence_missing")
        log_decision(log, "Wie groß?", "a private text", answer, decision, {"p_abstain": 2.0})
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [e["action"] for e in entries] == ["answer", "decline"]
    assert entries[0]["signals"] == {"p_abstain": 2.0}
    assert entries[0]["question"] == "Wie groß?"
    assert (entries[1]["model_answer"], entries[1]["predicted_reason"]) == (
        "3 m",
        "evidence_missing",
    )
    assert entries[0]["context_hash"] == entries[1]["context_hash"]
    assert "private" not in log.read_text()


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the decision log"):
        answer = Answer("a", False, (-0.1,))
        log_decision(tmp_path / "file" / "log", "q", "c", answer, decide(True, 0, Policy(None)), {})
