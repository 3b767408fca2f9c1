"""The watch over the promise: its bounds hold at all times, its alarm does not cry wolf."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import beta as beta_function

from abstain import drift
from abstain.drift import (
    Audit,
    Seen,
    confidence_sequence,
    log_evidence,
    stability_index,
    tightened,
    watch,
)
from abstain.queue import Item, Reply

PROMISE = {"target_risk": 0.1, "delta": 0.05, "certifications": 1}


@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99))
def test_the_evidence_is_the_mixtures_likelihood_ratio(wrong: int, right: int, risk: float) -> None:
    a, b = 0.5, 4.5
    mixed = beta_function(a + wrong, b + right) / beta_function(a, b)
    plain = risk**wrong * (1 - risk) ** right
    if mixed > 0 and plain > 0:
        assert log_evidence(wrong, wrong + right, risk) == pytest.approx(
            math.log(mixed / plain), rel=1e-6, abs=1e-6
        )


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200), st.sampled_from([0.01, 0.05, 0.2]))
def test_its_bounds_are_where_the_evidence_reaches_the_level(
    wrong: int, right: int, delta: float
) -> None:
    count = wrong + right
    low, high = confidence_sequence(wrong, count, delta)
    assert 0 <= low <= (wrong / count if count else 0.5) <= high <= 1
    grid = np.linspace(1e-6, 1 - 1e-6, 2001)
    kept = [r for r in grid if log_evidence(wrong, count, r) < math.log(1 / delta)]
    assert kept[0] == pytest.approx(low, abs=1e-3) and kept[-1] == pytest.approx(high, abs=1e-3)


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.4])
def test_looking_every_time_breaks_it_no_more_often_than_promised(risk: float) -> None:
    draw = np.random.default_rng(1)
    broken = peeked = 0
    for _ in range(300):
        wrong = draw.uniform(size=400).__lt__(risk).cumsum()
        at = [log_evidence(int(k), n, risk) for n, k in enumerate(wrong, 1)]
        broken += max(at) >= math.log(1 / 0.05)
        # The same, looked at with a fixed sample's interval: what this is here to avoid.
        rates = wrong / np.arange(1, 401)
        error = 1.96 * np.sqrt(np.maximum(rates * (1 - rates), 1e-9) / np.arange(1, 401))
        peeked += bool((np.abs(rates - risk) > error)[20:].any())
    assert broken <= 300 * 0.05 + 3 * math.sqrt(300 * 0.05 * 0.95)
    assert peeked > 2 * 300 * 0.05


def one(confidence: float, right: bool) -> Audit:
    return Audit((Seen(confidence, right),), "c")


def audited(count: int, risk: float, seed: int = 0) -> list[Audit]:
    """The less sure, the more often wrong."""
    draw = np.random.default_rng(seed)
    return [
        one(float(sure), bool(draw.uniform() > risk * (1.5 - sure)))
        for sure in draw.uniform(0.5, 1, size=count)
    ]


def test_it_alarms_when_the_promise_fails_and_tightens_to_what_holds() -> None:
    assert watch([], 0.5, PROMISE).state == "open"
    assert watch(audited(20, 0.1), 0.5, PROMISE).state == "open"
    good = watch(audited(600, 0.02), 0.5, PROMISE)
    assert good.state == "supported" and good.tighten_to is None and good.coverage == 1
    assert watch(audited(600, 0.02), 0.5, None).state == "unguaranteed"
    found = watch(audited(800, 0.45), 0.5, PROMISE)
    assert found.state == "refuted" and found.low > 0.1
    assert found.tighten_to is not None and found.tighten_to > 0.9
    for seed in range(5):
        cut = []
        for made in audited(800, 0.45, seed):
            look = made.looks[0]
            cut.append(one(look.confidence, look.right or look.confidence > 0.8))
        at = tightened(cut, 0.5, 0.1, 0.05)
        kept = [look for made in cut if (look := made.answer(at)) is not None]
        assert 0.7 < at < 0.85 and sum(not look.right for look in kept) / len(kept) <= 0.1
    silent = [one(-math.inf, False)] * 50
    assert watch(silent, 0.5, PROMISE).answered == 0


def test_of_several_looks_the_first_that_passes_counts_and_none_is_guessed() -> None:
    twice = [Audit((Seen(0.3, True), Seen(0.9, False)), "c")] * 100
    both = watch(twice + [one(0.9, True)] * 100, 0.5, PROMISE)
    assert (both.answered, both.wrong, both.state) == (200, 100, "refuted")
    assert both.tighten_to is not None and both.tighten_to > 1  # nobody saw what would come then
    # What a rule keeps from being answered is no answer, however sure.
    kept_back = [one(-math.inf, False)] * 60 + [one(0.9, True)] * 60
    assert watch(kept_back, 0.5, PROMISE).wrong == 0


def test_a_shift_of_the_questions_is_seen() -> None:
    draw = np.random.default_rng(0)
    reference = np.quantile(draw.uniform(size=500), np.linspace(0, 1, 11)).tolist()
    same = [one(float(c), True) for c in draw.uniform(size=300)]
    other = [one(float(c), True) for c in draw.beta(1, 4, size=300)]
    assert not watch(same, 0.5, PROMISE, reference).shifted
    assert watch(other, 0.5, PROMISE, reference).shifted
    assert stability_index(np.linspace(0, 1, 110).tolist(), np.linspace(0, 1, 11).tolist()) < 0.01


def item(n: int, **more: Any) -> Item:
    look = {"text": "red", "abstained": False, "head_declines": False, "may_answer": True}
    decision = {"action": "answer", "looks": [{**look, "confidence": 0.9}]}
    values: dict[str, Any] = {
        "escalated": False, "audited": True, "inclusion": 0.1, "decision": decision,
        "policy": "p", "status": "answered", "reply": Reply(True, ("Red",)),
    }  # fmt: skip
    return Item(f"i{n}", "What colour?", f"It is red {n}.", **{**values, **more})


def test_only_uniform_audits_of_the_same_policy_count() -> None:
    look = item(0).decision["looks"][0]
    held = {"action": "escalate", "looks": [{**look, "may_answer": False}]}
    items = [
        item(1),
        item(2, reply=Reply(True, ("blue",))),
        item(3, reply=Reply(False, (), "evidence_missing")),
        item(4, audited=False, escalated=True),
        item(5, policy="another"),
        item(6, status="waiting", reply=None),
        item(7, decision=held),
    ]
    found = drift.audits(items, "p")
    assert [audit.looks[0].right for audit in found] == [True, False, False, True]
    assert [audit.looks[0].confidence for audit in found] == [0.9, 0.9, 0.9, -math.inf]


def test_export_gives_each_document_one_use_and_each_row_its_weight(tmp_path: Path) -> None:
    from abstain.queue_export import export

    items = [item(n, document=f"d{n % 10}") for n in range(60)]
    items += [item(n, audited=False, escalated=True, inclusion=1.0, document=f"d{n % 10}")
              for n in range(60, 120)]  # fmt: skip
    items += [item(200, status="waiting", reply=None), item(201, reply=Reply(False, (), ""))]
    found = export(items, 0.5, seed=1)
    folds = {row.document_id: row.fold for row in found.rows}
    assert set(folds.values()) == {"train", "calibration"}
    assert all(folds[row.document_id] == row.fold for row in found.rows)
    certifying = [row for row in found.rows if row.fold == "calibration"]
    audited_ids = {one.id for one in items if one.audited}
    assert all(row.source_id in audited_ids and row.weight == 1 for row in certifying)
    assert {row.weight for row in found.rows if row.fold == "train"} == {1.0, 10.0}
    assert found.left_out["waiting"] == 1
    assert found.left_out["not audited, in a document for calibration"] > 0
    row = found.rows[0]
    assert row.answers == ["red"] and row.sufficient and row.answer_starts == [6]
    again = export(items, 0.5, seed=1)
    assert [one.fold for one in again.rows] == [one.fold for one in found.rows]


def test_what_shares_a_context_or_a_document_shares_a_fold_also_with_known_data() -> None:
    from abstain.queue_export import export, row_of

    # The same contexts, once with their document's name and once without.
    items = [item(n % 40, document=f"d{n % 40}" if n < 40 else "") for n in range(80)]
    found = export(items, 0.5, seed=2)
    folds: dict[str, set[str]] = {}
    for row in found.rows:
        folds.setdefault(row.context, set()).add(row.fold)
    assert len(folds) == 40 and all(len(one) == 1 for one in folds.values())
    known = [replace(row_of(item(n)), fold=fold, source="old")
             for n, fold in enumerate(["train", "test", "calibration"])]  # fmt: skip
    joined = export([item(n, document=f"d{n}") for n in range(3)], 0.5, 2, known)
    assert [row.fold for row in joined.rows] == ["train", "calibration"]
    assert joined.left_out == {"its document or context is in test": 1}


def test_rows_that_a_person_answered_weigh_what_undoes_the_sampling() -> None:
    """The weighted share of right answers is that of all questions, hard ones asked sooner."""
    draw = np.random.default_rng(3)
    from abstain.queue_export import export

    items, truth = [], []
    for n in range(4000):
        hard = draw.uniform() < 0.3
        sufficient = bool(draw.uniform() < (0.2 if hard else 0.8))
        truth.append(sufficient)
        audit = bool(draw.uniform() < 0.2)
        if hard or audit:
            reply = Reply(sufficient, ("red",) if sufficient else (), "")
            items.append(
                item(n, audited=audit, escalated=hard, inclusion=1.0 if hard else 0.2, reply=reply)
            )
    rows = export(items, 0.0, seed=1).rows
    weights = np.array([row.weight for row in rows])
    labels = np.array([bool(row.sufficient) for row in rows])
    assert (weights * labels).sum() / weights.sum() == pytest.approx(np.mean(truth), abs=0.03)
    assert abs(labels.mean() - np.mean(truth)) > 0.1  # what it would be without them
