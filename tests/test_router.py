"""The router: its rules, what they may fetch, and the record of every decision."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abstain import policy as policies
from abstain.decisions import DecisionLog, record
from abstain.policy import RoutingPolicy
from abstain.router import (
    Failed,
    Fetched,
    Found,
    Look,
    Outcome,
    OutOfTime,
    Threshold,
    Wanted,
    message,
    route,
    verdict,
)
from curate.errors import UserError
from curate.record import REASONS

GUARANTEE = {"target_risk": 0.1, "delta": 0.05, "certifications": 1}
RETRIEVER = {"kind": "http", "url": "http://127.0.0.1:9/find"}
SECOND = {"url": "http://127.0.0.1:9/v1", "model": "large"}
FULL: dict[str, Any] = {
    "rules": [
        {"action": "escalate", "when": {"topic": ["refunds"]}, "name": "money"},
        {"action": "answer"},
        {"action": "clarify", "when": {"reason": ["underspecified"]}},
        {"action": "retrieve", "when": {"reason": ["no_context", "evidence_missing"]}},
        {"action": "second_model", "when": {"confidence": {"at_least": 0.3}}},
        {"action": "escalate", "when": {"said_no": False}},
    ],
    "topics": {"refunds": ["refund", "money back"]},
    "retriever": RETRIEVER,
    "second_model": SECOND,
    "costs": {"retrieve": 1, "second_model": 5},
}


@pytest.mark.parametrize(
    ("abstained", "confidence", "threshold", "passes", "rule"),
    [
        (True, 0.99, 0.5, False, "model_abstained"),
        (True, 0.99, None, False, "model_abstained"),
        (False, 0.01, None, True, "uncalibrated"),
        (False, 0.5, 0.5, True, "at_or_above_threshold"),
        (False, 0.49, 0.5, False, "below_threshold"),
        (False, None, 0.5, False, "not_calibrated"),
    ],
)
def test_each_verdict(
    abstained: bool, confidence: float | None, threshold: float | None, passes: bool, rule: str
) -> None:
    found = verdict(abstained, confidence, Threshold(threshold))
    assert (found.passes, found.rule) == (passes, rule)


def test_a_threshold_says_whether_it_carries_a_guarantee() -> None:
    assert "no guarantee" in verdict(False, 0.9, Threshold(0.5)).why
    why = verdict(False, 0.9, Threshold(0.5, GUARANTEE)).why
    assert "at most 10% are wrong, with probability 95%" in why and "not kept" not in why
    again = Threshold(0.5, {**GUARANTEE, "certifications": 3}).promise()
    assert "not kept: it is number 3 tried on the same rows" in again


def look(confidence: float | None = 0.4, **more: Any) -> Look:
    return Look(
        "own", more.pop("context", "c"), "3 m", more.pop("abstained", False), confidence, **more
    )


Answers = Callable[[Wanted], Fetched]


def decide(
    policy: RoutingPolicy, answers: Answers, question: str = "How long?", context: str = "c"
) -> tuple[Outcome, list[str]]:
    """Run one question through; also what was fetched, in order."""
    steps, fetched = route(policy, Threshold(0.5, GUARANTEE), question, context), []
    wanted = next(steps)
    while len(fetched) < 50:
        fetched.append(wanted.fetch)
        try:
            wanted = steps.send(answers(wanted))
        except StopIteration as done:
            return done.value, fetched
    raise AssertionError("it does not end")


def full(**more: Any) -> RoutingPolicy:
    return RoutingPolicy.model_validate({**FULL, **more})


def test_rules_are_tried_from_the_top() -> None:
    sure, unsure = (lambda _: look(0.9)), (lambda _: look(0.4, reason="underspecified"))
    outcome, fetched = decide(full(), sure)
    assert outcome.decision.action == "answer" and fetched == ["answer"]
    assert outcome.decision.rule == "at_or_above_threshold" and outcome.looks[0].may_answer
    # A topic that stands above the answer is never answered, however sure.
    outcome, _ = decide(full(), sure, "Do I get my Money Back?")
    assert (outcome.decision.action, outcome.decision.rule) == ("escalate", "money")
    assert not outcome.looks[0].may_answer
    assert decide(full(), sure, "Are moneybacks refundable?")[0].decision.action == "answer"
    outcome, _ = decide(full(), unsure)
    assert outcome.decision.action == "clarify"
    assert "Which one do you mean?" in message(full(), outcome, "unanswerable")


def test_more_context_is_fetched_and_looked_at_again_within_the_budget() -> None:
    def answers(wanted: Wanted) -> Fetched:
        if wanted.fetch == "retrieve":
            return Found(("It is 3 m long.",), ("length.txt",))
        if "3 m long" in wanted.context:
            return look(0.8, context=wanted.context)
        return look(0.1, reason="evidence_missing", context=wanted.context)

    outcome, fetched = decide(full(), answers)
    assert fetched == ["answer", "retrieve", "answer"] and outcome.cost == 1
    assert outcome.decision.action == "answer" and outcome.looks[1].retrieved == ("length.txt",)
    assert outcome.looks[1].context == "It is 3 m long.\n\nc"
    # What is there already is nothing new, and then the rules below decide.
    outcome, fetched = decide(full(), answers, context="x. It is 3 m long.")
    assert fetched == ["answer"]

    def useless(wanted: Wanted) -> Fetched:
        found = Found(("c",), ("same.txt",))
        return found if wanted.fetch == "retrieve" else look(0.1, reason="no_context")

    outcome, fetched = decide(full(), useless)
    assert fetched == ["answer", "retrieve"] and outcome.decision.action == "escalate"
    assert outcome.notes == ("retrieve: nothing new was found",)
    none = full(budget={"retrievals": 0})
    assert decide(none, useless)[1] == ["answer"]
    dear = full(budget={"cost": 0.5})
    assert decide(dear, useless)[1] == ["answer"]


def test_the_second_model_is_asked_once_and_obeys_the_threshold_too() -> None:
    def answers(sure: float | None) -> Answers:
        return lambda wanted: look(sure if wanted.fetch == "second_model" else 0.4)

    outcome, fetched = decide(full(), answers(0.9))
    assert fetched == ["answer", "second_model"] and outcome.decision.action == "answer"
    for unsure in (0.45, None):  # None: nobody has calibrated it
        outcome, fetched = decide(full(), answers(unsure))
        assert fetched == ["answer", "second_model"] and outcome.decision.action == "escalate"

    def broken(wanted: Wanted) -> Fetched:
        return Failed("garbage") if wanted.fetch == "second_model" else look(0.4)

    outcome, _ = decide(full(), broken)
    assert outcome.decision.action == "escalate" and outcome.notes == ("second_model: garbage",)


def test_without_an_answer_or_time_a_person_is_asked_where_there_is_one() -> None:
    outcome, _ = decide(full(), lambda _: Failed("the context is too long"))
    assert outcome.decision.action == "escalate" and outcome.decision.rule == "model_failed"
    assert decide(RoutingPolicy(), lambda _: Failed("x"))[0].decision.action == "decline"
    steps = route(full(), Threshold(0.5), "q", "c")
    next(steps)
    steps.send(look(0.1, reason="no_context"))
    with pytest.raises(StopIteration) as done:
        steps.throw(OutOfTime("after 3 seconds"))
    assert done.value.value.decision.rule == "out_of_time"
    assert done.value.value.decision.action == "escalate"


_numbers = st.floats(0, 1)
_ranges = st.builds(dict, at_least=st.none() | _numbers, below=st.none() | _numbers)
_when = st.fixed_dictionaries(
    {},
    optional={
        "confidence": _ranges,
        "p_sufficient": _ranges,
        "reason": st.lists(st.sampled_from(REASONS), max_size=2),
        "said_no": st.booleans(),
        "topic": st.just(["refunds"]),
        "cost": _ranges,
        "has_context": st.booleans(),
        "signals": st.dictionaries(st.sampled_from(["p_abstain"]), _ranges, max_size=1),
    },
)
_rule = st.fixed_dictionaries({"action": st.sampled_from(policies.ACTIONS), "when": _when})
_look = st.builds(
    look,
    st.none() | _numbers,
    abstained=st.booleans(),
    head_declines=st.booleans(),
    p_sufficient=st.none() | _numbers,
    reason=st.none() | st.sampled_from(REASONS),
)


@given(st.lists(_rule, min_size=1, max_size=5), st.data(), st.integers(0, 3))
def test_no_policy_answers_what_does_not_pass_the_threshold(
    rules: list[Any], data: st.DataObject, retrievals: int
) -> None:
    policy = full(rules=rules, budget={"retrievals": retrievals})
    count = 0

    def answers(wanted: Wanted) -> Fetched:
        nonlocal count
        count += 1
        if data.draw(st.integers(0, 4)) == 0:
            return Failed("down")
        if wanted.fetch == "retrieve":
            return Found((f"passage {count}",), ("x",))
        return data.draw(_look)

    outcome, fetched = decide(policy, answers, data.draw(st.sampled_from(["q", "my refund"])))
    assert fetched.count("retrieve") <= retrievals and fetched.count("second_model") <= 1
    if outcome.decision.action == "answer":
        final = outcome.looks[-1]
        assert final.confidence is not None and final.confidence >= 0.5 and not final.said_no
        assert final.may_answer
    assert message(policy, outcome, "unanswerable")


def test_the_way_does_not_depend_on_the_threshold_which_only_ends_it() -> None:
    """What `abstain calibrate --policy` rests on: one exploration serves for all thresholds."""
    confidences = iter([0.35, 0.45])

    def answers(wanted: Wanted) -> Fetched:
        if wanted.fetch == "retrieve":
            return Found(("more",), ("m",))
        return look(next(confidences), reason="no_context")

    policy = full()
    steps = route(policy, Threshold(2.0), "q", "c")
    wanted, looks = next(steps), []
    while True:
        thing = look(0.6) if wanted.fetch == "second_model" else answers(wanted)
        try:
            wanted = steps.send(thing)
        except StopIteration as done:
            looks = done.value.looks
            break
    assert [one.confidence for one in looks] == [0.35, 0.45, 0.6]
    assert all(one.may_answer for one in looks)


def test_a_policy_is_read_and_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "rules:\n"
        "  - {action: answer}\n"
        "  - {action: retrieve, when: {reason: [no_context]}}\n"
        "  - {action: escalate, when: {confidence: {at_least: 0.2, below: 0.5}}, name: near}\n"
        "retriever: {kind: bm25, folder: documents}\n"
    )
    found = policies.read(tmp_path / "policy.yaml")
    assert found.retriever is not None and found.retriever.kind == "bm25"
    assert found.retriever.folder == tmp_path / "documents"
    told = found.explain()
    assert "2. if the likely reason is no_context: retrieve 3 passages" in told
    assert "3. if confidence is at least 0.2 and below 0.5: put it in the queue" in told
    assert "otherwise: decline" in told


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rules: [{action: anser}]", "anser"),
        ("rules: []", "at least 1 item"),
        ("rules: [{action: retrieve}]", "there is no 'retriever:' to ask"),
        ("rules: [{action: second_model}]", "there is no 'second_model:' to ask"),
        ("rules: [{action: answer, when: {topic: [x]}}]", "for the topic 'x'"),
        ("rules: [{action: answer, when: {reason: [lost]}}]", "no reason is called 'lost'"),
        ("rulez: []", "did you mean 'rules'"),
        ("audit_share: 2", "less than or equal to 1"),
    ],
)
def test_a_mistake_in_a_policy_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    with pytest.raises(UserError, match=r"policy\.yaml: line 1") as refused:
        policies.read(tmp_path / "policy.yaml")
    assert message in str(refused.value)


def test_what_decides_names_a_policy_and_nothing_else_does() -> None:
    assert RoutingPolicy().decisive("") == ""
    rest = {"rules": [{"action": "answer"}, {"action": "clarify"}], "audit_share": 0.5}
    assert RoutingPolicy.model_validate(rest).is_plain  # the same questions are answered
    base = full().decisive("documents")
    assert base and base == full(messages={"escalate": "Wait."}, name="other").decisive("documents")
    assert base != full().decisive("other documents")
    assert base != full(topics={"refunds": ["refund"]}).decisive("documents")
    assert base != full(budget={"retrievals": 2}).decisive("documents")
    assert base != full(second_model={**SECOND, "model": "other"}).decisive("documents")
    first_not_always = {"rules": [{"action": "answer", "when": {"said_no": False}}]}
    assert not RoutingPolicy.model_validate(first_not_always).is_plain


def test_decisions_are_appended_with_all_that_they_turned_on(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "new" / "decisions.jsonl")
    for sure in (0.9, 0.1):
        more = {"reason": "irrelevant_context", "signals": {"p_abstain": 2.0}}
        seen = look(sure, context="a private text", **more)
        outcome, _ = decide(RoutingPolicy(), lambda _, seen=seen: seen)  # type: ignore[misc]
        log.append(record("Wie groß?", "3 m", outcome, Threshold(0.5, GUARANTEE), 12.0, "r1"))
    text = (tmp_path / "new" / "decisions.jsonl").read_text(encoding="utf-8")
    first, second = map(json.loads, text.splitlines())
    assert (first["action"], second["action"]) == ("answer", "decline")
    assert first["signals"] == {"p_abstain": 2.0} and first["question"] == "Wie groß?"
    assert "at most 10% are wrong" in first["guarantee"] and first["threshold"] == 0.5
    assert (second["model_answer"], second["predicted_reason"]) == ("3 m", "irrelevant_context")
    assert first["looks"][0]["context_hash"] == second["looks"][0]["context_hash"]
    assert "private" not in text


def test_a_log_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the decision log"):
        DecisionLog(tmp_path / "file" / "log").append({})
