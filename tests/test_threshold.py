"""The threshold's promise holds, and "infeasible" is told when it must be."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from abstain.threshold import Guarantee, Infeasible, by_cost, candidates, certify


def simulate(draw: Any, rows: int, slope: float = 3.0) -> tuple[Any, Any, Any, Any]:
    """Scores with a known chance of being right; about a tenth of the rows abstained."""
    confidence = draw.random(rows)
    chance = 1 / (1 + np.exp(-slope * (confidence - 0.2) * 2))
    answered = draw.random(rows) < 0.9
    return confidence, answered, draw.random(rows) < chance, chance


@pytest.mark.parametrize(("rows", "risk"), [(300, 0.2), (300, 0.1), (1000, 0.1)])
def test_the_true_risk_exceeds_the_target_in_at_most_delta_of_draws(rows: int, risk: float) -> None:
    draw, delta, draws, violations, certified = np.random.default_rng(7), 0.1, 400, 0, 0
    population = simulate(draw, 200_000)
    for _ in range(draws):
        validation = simulate(draw, 300)
        thresholds = candidates(validation[0], validation[1], rows, risk, delta)
        confidence, answered, right, _ = simulate(draw, rows)
        outcome = certify(thresholds, confidence, answered, right, risk, delta)
        if isinstance(outcome, Guarantee):
            certified += 1
            accept = population[1] & (population[0] >= outcome.threshold)
            violations += bool((1 - population[3][accept]).mean() > risk)
    assert violations <= binom.ppf(0.999, draws, delta)
    assert certified > draws / 4  # a procedure that never certifies would pass the line above


def test_certification_is_the_exact_binomial_tail_in_a_fixed_sequence() -> None:
    draw = np.random.default_rng(3)
    confidence, answered, right, _ = simulate(draw, 400)
    thresholds = [0.9, 0.8, 0.6, 0.4, 0.2, 0.0]
    outcome = certify(thresholds, confidence, answered, right, 0.2, 0.05)
    last = None
    for threshold in thresholds:
        accepted = [i for i in range(400) if answered[i] and confidence[i] >= threshold]
        errors = sum(not right[i] for i in accepted)
        tail = sum(
            math.comb(len(accepted), k) * 0.2**k * 0.8 ** (len(accepted) - k)
            for k in range(errors + 1)
        )
        if tail > 0.05:
            break
        last = (threshold, len(accepted), errors, tail)
    assert isinstance(outcome, Guarantee) and last is not None
    assert (outcome.threshold, outcome.accepted, outcome.errors) == last[:3]
    assert outcome.p_value == pytest.approx(last[3], rel=1e-9)


def test_a_later_candidate_is_not_tried_after_a_failure() -> None:
    confidence = np.array([0.9] * 30 + [0.5] * 300)
    right = np.array([False] * 30 + [True] * 300)  # the strictest candidate errs, all together not
    outcome = certify([0.9, 0.5], confidence, np.ones(330, bool), right, 0.2, 0.05)
    assert isinstance(outcome, Infeasible)


def test_infeasible_tells_how_many_rows_would_do_and_they_do() -> None:
    confidence, answered = np.ones(20), np.ones(20, bool)
    right = np.array([False] + [True] * 19)
    outcome = certify([0.5], confidence, answered, right, 0.1, 0.05)
    assert isinstance(outcome, Infeasible)
    assert outcome.rows_needed is not None and outcome.rows_needed > 20
    assert f"about {outcome.rows_needed} rows would be needed" in outcome.text()
    times = math.ceil(outcome.rows_needed / 20)
    more = certify(
        [0.5], np.ones(20 * times), np.ones(20 * times, bool), np.tile(right, times), 0.1, 0.05
    )
    assert isinstance(more, Guarantee)


def test_infeasible_says_so_when_no_number_of_rows_would_do() -> None:
    right = np.array([False, True] * 50)
    outcome = certify([0.5], np.ones(100), np.ones(100, bool), right, 0.1, 0.05)
    assert isinstance(outcome, Infeasible)
    assert outcome.rows_needed is None
    assert "no number of rows would do" in outcome.text()


def test_nothing_answered_is_infeasible_and_no_crash() -> None:
    none = np.zeros(50, bool)
    assert candidates(np.ones(50), none, 50, 0.1, 0.05) == []
    outcome = certify([], np.ones(50), none, none, 0.1, 0.05)
    assert isinstance(outcome, Infeasible)
    assert outcome.accepted == 0
    assert outcome.text() == "infeasible: of 50 rows, none is answered at the first candidate"


def test_the_first_candidate_accepts_about_twice_what_an_errorless_sample_needs() -> None:
    confidence = np.linspace(0, 1, 2000)
    first = candidates(confidence, np.ones(2000, bool), 1000, 0.1, 0.05)[0]
    expected = 2 * math.log(0.05) / math.log(0.9)  # 56.9 rows of the calibration units
    assert (confidence >= first).mean() * 1000 == pytest.approx(expected, abs=1.5)


def test_candidates_fall_and_end_with_every_answered_row() -> None:
    draw = np.random.default_rng(0)
    confidence, answered = draw.random(500), draw.random(500) < 0.7
    found = candidates(confidence, answered, 300, 0.1, 0.05)
    assert found == sorted(set(found), reverse=True)
    assert found[-1] == confidence[answered].min()


cost_rows = st.lists(
    st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=12,
)


@given(cost_rows, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_by_cost_is_the_cheapest_of_all_thresholds(rows: Any, cost_abstain: float) -> None:
    confidence, answered, right = (np.array(column) for column in zip(*rows, strict=True))

    def cost(threshold: float) -> float:
        accept = answered & (confidence >= threshold)
        return float((accept & ~right).sum() + cost_abstain * (~accept).sum())

    found = by_cost(confidence, answered, right, 1.0, cost_abstain)
    assert cost(found) == pytest.approx(min(cost(t) for t in [0.1, 0.3, 0.5, 0.7, 1.1]))
