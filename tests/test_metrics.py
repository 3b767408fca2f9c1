"""Metrics against scikit-learn, SQuAD's published definition, and slow obvious versions."""

import math
import random
import re
import string
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, roc_auc_score

from abstain import metrics
from abstain.metrics import Judged
from abstain.predict import judge

# ── SQuAD 2.0, written from its published definition, apart from the code under test ──────────


def squad_tokens(text: str) -> list[str]:
    text = "".join(c for c in text.lower() if c not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


def squad_em(prediction: str, golds: list[str]) -> int:
    golds = golds or [""]
    return max(int(squad_tokens(prediction) == squad_tokens(gold)) for gold in golds)


def squad_f1(prediction: str, golds: list[str]) -> float:
    best = 0.0
    for gold in golds or [""]:
        p, g = squad_tokens(prediction), squad_tokens(gold)
        if not p or not g:
            best = max(best, float(p == g))
            continue
        same = sum((Counter(p) & Counter(g)).values())
        if same:
            precision, recall = same / len(p), same / len(g)
            best = max(best, 2 * precision * recall / (precision + recall))
    return best


words = st.sampled_from(["the", "a", "Nile", "nile,", "river", "10,000", "(Cairo)", "–", "an", ""])
texts = st.lists(words, max_size=5).map(" ".join)


@given(texts, st.lists(texts, max_size=4))
@settings(max_examples=300)
def test_exact_match_and_f1_are_squads(prediction: str, answers: list[str]) -> None:
    assert abs(metrics.exact_match(prediction, answers) - squad_em(prediction, answers)) <= 1e-9
    assert abs(metrics.f1(prediction, answers) - squad_f1(prediction, answers)) <= 1e-9


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "f1"),
    [
        ("The Nile.", ["nile"], 1, 1.0),
        ("river Nile", ["the Nile", "Nile river"], 0, 1.0),
        ("the river Nile in Egypt", ["Nile", "river Nile"], 0, 2 / 3),
        ("", [], 1, 1.0),  # an abstention on an unanswerable question
        ("Nile", [], 0, 0.0),  # an answer to an unanswerable question
        ("", ["Nile"], 0, 0.0),  # an abstention on an answerable one
        ("the", [], 1, 1.0),  # normalises to nothing
    ],
)
def test_squad_cases(prediction: str, answers: list[str], em: int, f1: float) -> None:
    assert metrics.exact_match(prediction, answers) == em
    assert metrics.f1(prediction, answers) == pytest.approx(f1, abs=1e-9)


# ── Rankings ──────────────────────────────────────────────────────────────────────────────────

scores_and_labels = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0]), st.booleans()),
    min_size=1,
    max_size=30,
)


@given(scores_and_labels)
@settings(max_examples=200, deadline=None)
def test_auroc_and_brier_are_scikit_learns(rows: list[tuple[float, bool]]) -> None:
    score, label = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    if len(set(label)) < 2:
        assert math.isnan(metrics.auroc(score, label))
    else:
        assert metrics.auroc(score, label) == pytest.approx(roc_auc_score(label, score), abs=1e-9)
        assert metrics.brier(score, label) == pytest.approx(brier_score_loss(label, score))


def slow_areas(rows: list[tuple[float, bool]], orders: int = 4000) -> tuple[float, float]:
    """AURC and AUGRC as means over random orders of the ties."""
    draw, aurcs, augrcs = random.Random(0), [], []
    for _ in range(orders):
        ordered = sorted(rows, key=lambda row: (-row[0], draw.random()))
        errors, risks, generalised = 0, [], []
        for k, (_, right) in enumerate(ordered, 1):
            errors += not right
            risks.append(errors / k)
            generalised.append(errors / len(rows))
        aurcs.append(sum(risks) / len(rows))
        augrcs.append(sum(generalised) / len(rows))
    return sum(aurcs) / orders, sum(augrcs) / orders


def test_areas_under_risk_coverage_curves_take_the_expectation_over_ties() -> None:
    rows = [(0.9, True), (0.9, False), (0.9, True), (0.5, False), (0.5, True), (0.1, False)]
    score, right = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    aurc, augrc = slow_areas(rows)
    assert metrics.aurc(score, right) == pytest.approx(aurc, abs=0.01)
    assert metrics.augrc(score, right) == pytest.approx(augrc, abs=0.01)


@given(scores_and_labels, st.randoms())
@settings(max_examples=50, deadline=None)
def test_no_metric_depends_on_the_order_of_rows(rows: Any, draw: random.Random) -> None:
    shuffled = list(rows)
    draw.shuffle(shuffled)
    found = []
    for version in (rows, shuffled):
        score, right = np.array([s for s, _ in version]), np.array([y for _, y in version])
        found.append([f(score, right) for f in (metrics.aurc, metrics.augrc, metrics.ece)])
    assert found[0] == pytest.approx(found[1], abs=1e-12)


def test_aurc_without_ties_by_hand() -> None:
    score, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert metrics.aurc(score, right) == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    assert metrics.best_aurc(right) == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert metrics.augrc(score, right) == pytest.approx((0 + 1 + 1 + 2) / 16)


def test_prr_is_one_for_the_perfect_ranking_and_zero_for_a_constant() -> None:
    right = np.array([True, False, True, True, False])
    assert metrics.prr(right.astype(float), right) == pytest.approx(1.0)
    assert metrics.prr(np.full(5, 0.5), right) == pytest.approx(0.0)


@given(scores_and_labels)
def test_ece_is_the_obvious_one(rows: list[tuple[float, bool]]) -> None:
    total = 0.0
    for low in range(10):
        inside = [(s, y) for s, y in rows if low <= s * 10 < low + 1 or (low == 9 and s == 1.0)]
        if inside:
            confidence = sum(s for s, _ in inside) / len(inside)
            accuracy = sum(y for _, y in inside) / len(inside)
            total += len(inside) / len(rows) * abs(confidence - accuracy)
    score, right = np.array([s for s, _ in rows]), np.array([y for _, y in rows])
    assert metrics.ece(score, right) == pytest.approx(total, abs=1e-9)


def judged(rows: list[tuple[float, bool, bool, bool]]) -> Judged:
    """From (confidence, sufficient, answered, right if answered)."""
    confidence, sufficient, answered, right = (
        np.array(column) for column in zip(*rows, strict=True)
    )
    right = right & answered & sufficient
    em = np.where(answered, right, ~sufficient).astype(float)
    return Judged(em, em, sufficient, answered, right, confidence, confidence)


def test_coverage_at_risk_moves_ties_together_and_counts_all_rows() -> None:
    rows = judged(
        [
            (0.9, True, True, True),
            (0.8, True, True, True),
            (0.8, False, True, False),  # tied with a right one: in or out together
            (0.7, True, True, True),
            (0.1, False, False, False),
        ]
    )
    assert metrics.coverage_at_risk(rows, 0.05) == pytest.approx(1 / 5)
    assert metrics.coverage_at_risk(rows, 0.25) == pytest.approx(4 / 5)


def test_abstentions_are_never_covered_correct_answers() -> None:
    rows = judged([(0.9, False, False, False)] * 9 + [(0.8, True, True, False)])
    found = metrics.compute(rows)
    assert found["no_ans_accuracy"] == 1.0
    assert found["coverage"] == pytest.approx(0.1)
    assert found["selective_risk"] == 1.0
    assert found["aurc"] == 1.0


def test_judging_declines_scores_the_empty_answer() -> None:
    from abstain.answer import Answer
    from curate.record import Row

    rows = [Row("q", "c", answers=["Nile"], sufficient=True), Row("q", "c", sufficient=False)]
    answers = [Answer("the Nile", False, (-0.5, -0.5))] * 2
    half = np.array([0.5, 0.5])
    kept = judge(rows, answers, half, half, 0.5, [False, False])
    declined = judge(rows, answers, half, half, 0.5, [True, True])
    assert (kept.em.tolist(), declined.em.tolist()) == ([1, 0], [0, 1])
    assert kept.right.tolist() == [True, False]
    assert not declined.right.any()


def test_intervals_cover_the_value_and_widen_when_groups_are_alike_inside() -> None:
    draw = np.random.default_rng(1)
    rows = []
    for _ in range(40):
        good = draw.random() < 0.5  # a whole group is good or bad
        rows += [(float(draw.random()), True, True, good)] * 10
    grouped = metrics.with_intervals(judged(rows), [str(i // 10) for i in range(400)])["em"]
    alone = metrics.with_intervals(judged(rows), [str(i) for i in range(400)])["em"]
    assert grouped["low"] <= grouped["value"] <= grouped["high"]  # type: ignore[operator]
    width = [m["high"] - m["low"] for m in (grouped, alone)]  # type: ignore[operator]
    assert width[0] > 2 * width[1]


def test_undefined_metrics_are_none_and_not_nan() -> None:
    nobody_answered = judged([(0.5, True, False, False)] * 4)
    found = metrics.with_intervals(nobody_answered, ["a", "b", "c", "d"])
    assert found["selective_risk"] == {"value": None, "low": None, "high": None}
    assert found["auroc_sufficient"]["value"] is None
