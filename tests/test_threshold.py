"""The threshold's promise holds, and "infeasible" is told when it must be."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from abstain.threshold import (
    Goal,
    Guarantee,
    Infeasible,
    Procedure,
    Units,
    candidates,
    certify,
    tail,
    upper_bound,
)
from abstain.unguaranteed import NEVER, by_cost, by_coverage, by_f1


def simulate(draw: Any, rows: int, slope: float = 3.0) -> tuple[Units, Any]:
    """Units with a known chance of being right; about a tenth of them abstained."""
    confidence = draw.random(rows)
    chance = 1 / (1 + np.exp(-slope * (confidence - 0.2) * 2))
    answered = draw.random(rows) < 0.9
    return Units(confidence, answered, draw.random(rows) < chance), chance


def all_answered(confidence: Any, right: Any) -> Units:
    return Units(np.asarray(confidence, float), np.ones(len(right), bool), np.asarray(right, bool))


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm", "sgr"])
@pytest.mark.parametrize(("rows", "risk"), [(300, 0.2), (1000, 0.1)])
def test_the_true_risk_exceeds_the_target_in_at_most_delta_of_draws(
    procedure: Procedure, rows: int, risk: float
) -> None:
    draw, draws, violations, certified = np.random.default_rng(7), 300, 0, 0
    goal = Goal(risk, 0.1, procedure)
    population, chance = simulate(draw, 100_000)
    for _ in range(draws):
        thresholds = candidates(simulate(draw, 300)[0], rows, goal)
        outcome = certify(thresholds, simulate(draw, rows)[0], goal)
        if isinstance(outcome, Guarantee):
            certified += 1
            accept = population.answered & (population.confidence >= outcome.threshold)
            violations += bool((1 - chance[accept]).mean() > risk)
    assert violations <= stats.binom.ppf(0.999, draws, goal.delta)
    assert certified > draws / 4  # a procedure that never certifies would pass the line above


def test_conformal_risk_control_holds_on_average() -> None:
    draw, goal = np.random.default_rng(3), Goal(0.15, 0.05, "crc")
    population, chance = simulate(draw, 100_000)
    risks = []
    for _ in range(300):
        outcome = certify([], simulate(draw, 150)[0], goal)
        assert isinstance(outcome, Guarantee) and outcome.delta is None
        accept = population.answered & (population.confidence >= outcome.threshold)
        risks.append(float(np.where(accept, 1 - chance, 0).mean()))
    assert np.mean(risks) <= 0.15 + 3 * np.std(risks) / 300**0.5
    assert np.mean(risks) > 0.12  # and does not waste much


def test_certification_is_the_exact_binomial_tail_in_a_fixed_sequence() -> None:
    units, _ = simulate(np.random.default_rng(3), 400)
    thresholds = [0.9, 0.8, 0.6, 0.4, 0.2, 0.0]
    outcome = certify(thresholds, units, Goal(0.2, 0.05))
    last = None
    for threshold in thresholds:
        accepted = [i for i in range(400) if units.answered[i] and units.confidence[i] >= threshold]
        errors = sum(not units.right[i] for i in accepted)
        p = sum(
            math.comb(len(accepted), k) * 0.2**k * 0.8 ** (len(accepted) - k)
            for k in range(errors + 1)
        )
        if p > 0.05:
            break
        last = (threshold, len(accepted), errors, p)
    assert isinstance(outcome, Guarantee) and last is not None
    assert (outcome.threshold, outcome.accepted, outcome.errors) == last[:3]
    assert outcome.p_value == pytest.approx(last[3], rel=1e-9)


@given(st.integers(1, 400), st.data(), st.sampled_from([0.01, 0.05, 0.2]))
@settings(max_examples=100, deadline=None)
def test_bounds_agree_with_scipys_binomial_test(accepted: int, data: Any, level: float) -> None:
    errors = data.draw(st.integers(0, accepted))
    test = stats.binomtest(errors, accepted, 0.1, alternative="less")
    assert tail(accepted, errors, 0.1) == pytest.approx(test.pvalue, abs=1e-12)
    interval = test.proportion_ci(1 - level, method="exact")
    assert upper_bound(accepted, errors, level) == pytest.approx(interval.high, abs=1e-9)


def test_a_later_candidate_is_not_tried_after_a_failure_but_holm_tries_all() -> None:
    # The strictest candidate errs, all together do not.
    units = all_answered([0.9] * 30 + [0.5] * 300, [False] * 30 + [True] * 300)
    assert isinstance(certify([0.9, 0.5], units, Goal(0.2, 0.05)), Infeasible)
    found = certify([0.9, 0.5], units, Goal(0.2, 0.05, "holm"))
    assert isinstance(found, Guarantee) and found.threshold == 0.5


def test_holm_corrects_for_the_number_of_candidates() -> None:
    units = all_answered([0.9] * 30, [True] * 30)  # p = 0.9³⁰ = 0.042 at each of them
    assert isinstance(certify([0.9], units, Goal(0.1, 0.05, "holm")), Guarantee)
    assert isinstance(certify([0.9, 0.8], units, Goal(0.1, 0.05, "holm")), Infeasible)


def test_sgr_stays_within_its_own_bound() -> None:
    units, _ = simulate(np.random.default_rng(9), 1000, slope=4)
    found = certify([], units, Goal(0.1, 0.05, "sgr"))
    assert isinstance(found, Guarantee) and found.risk_bound is not None
    expected = stats.beta.ppf(
        1 - 0.05 / found.tested, found.errors + 1, found.accepted - found.errors
    )
    assert found.risk_bound == pytest.approx(expected) and expected <= 0.1
    assert (found.accepted, found.errors) == units.count(found.threshold)


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm", "sgr", "crc"])
def test_tied_confidences_are_answered_together_or_not_at_all(procedure: Procedure) -> None:
    # Cutting the tie after its right answers would look safe.
    units = all_answered([0.7] * 200, [True] * 100 + [False] * 100)
    outcome = certify([0.7], units, Goal(0.2, 0.05, procedure))
    assert isinstance(outcome, Infeasible)
    good = all_answered([0.7] * 200, [True] * 200)
    found = certify([0.7], good, Goal(0.2, 0.05, procedure))
    assert isinstance(found, Guarantee) and found.accepted == 200


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm", "sgr"])
def test_infeasible_tells_how_many_rows_would_do_and_they_do(procedure: Procedure) -> None:
    right = np.array([False] + [True] * 19)
    goal = Goal(0.1, 0.05, procedure)
    outcome = certify([0.5], all_answered(np.ones(20), right), goal)
    assert isinstance(outcome, Infeasible)
    assert outcome.rows_needed is not None and outcome.rows_needed > 20
    assert f"about {outcome.rows_needed} contexts would do" in outcome.text("contexts")
    times = math.ceil(outcome.rows_needed / 20)
    more = certify([0.5], all_answered(np.ones(20 * times), np.tile(right, times)), goal)
    assert isinstance(more, Guarantee)


def test_conformal_risk_control_tells_how_many_rows_it_needs_at_least() -> None:
    goal = Goal(0.1, 0.05, "crc")
    outcome = certify([], all_answered(np.ones(5), [True] * 5), goal)
    assert isinstance(outcome, Infeasible) and outcome.rows_needed == 9
    assert isinstance(certify([], all_answered(np.ones(9), [True] * 9), goal), Guarantee)


def test_infeasible_says_so_when_no_number_of_rows_would_do() -> None:
    units = all_answered(np.ones(100), [False, True] * 50)
    outcome = certify([0.5], units, Goal(0.1, 0.05))
    assert isinstance(outcome, Infeasible)
    assert outcome.rows_needed is None
    assert "no number of contexts would do" in outcome.text("contexts")


@pytest.mark.parametrize("procedure", ["fixed-sequence", "holm", "sgr", "crc"])
@pytest.mark.parametrize("rows", [0, 50])
def test_nothing_answered_is_infeasible_and_no_crash(procedure: Procedure, rows: int) -> None:
    none = np.zeros(rows, bool)
    units = Units(np.ones(rows), none, none)
    goal = Goal(0.1, 0.05, procedure)
    assert candidates(units, 50, goal) == []
    outcome = certify([], units, goal)
    assert isinstance(outcome, Infeasible)
    assert outcome.accepted == 0
    assert "none is answered" in outcome.text("contexts")


def test_the_first_candidate_is_the_likeliest_to_pass() -> None:
    # Sure rows are right, the others wrong half of the time: more rows help, until errors come.
    right = np.arange(1000) % 2 == 0
    right[600:] = True
    units = all_answered(np.linspace(0, 1, 1000), right)
    first = candidates(units, 500, Goal(0.1, 0.05))[0]
    assert units.confidence[590] <= first <= units.confidence[600]


def test_too_few_units_to_pass_anywhere_still_give_candidates() -> None:
    units = all_answered(np.linspace(0, 1, 50), np.ones(50))
    assert candidates(units, 3, Goal(0.01, 0.05))


def test_candidates_fall_and_end_with_every_answered_row() -> None:
    draw = np.random.default_rng(0)
    units = Units(draw.random(500), draw.random(500) < 0.7, np.ones(500, bool))
    found = candidates(units, 300, Goal(0.1, 0.05))
    assert found == sorted(set(found), reverse=True)
    assert found[-1] == units.confidence[units.answered].min()


some_units = st.lists(
    st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.booleans(), st.booleans()),
    min_size=1,
    max_size=12,
).map(lambda rows: Units(*(np.array(column) for column in zip(*rows, strict=True))))
ALL_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, NEVER)


@given(some_units, st.sampled_from([0.0, 0.2, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_by_cost_is_the_cheapest_of_all_thresholds(units: Units, cost_abstain: float) -> None:
    def cost(threshold: float) -> float:
        accept = units.answered & (units.confidence >= threshold)
        return float((accept & ~units.right).sum() + cost_abstain * (~accept).sum())

    found = by_cost(units, 1.0, cost_abstain)
    assert cost(found) == pytest.approx(min(map(cost, ALL_THRESHOLDS)))


@given(some_units, st.sampled_from([0.0, 0.25, 0.5, 1.0]))
@settings(max_examples=200, deadline=None)
def test_by_coverage_answers_enough_and_no_stricter_threshold_does(
    units: Units, share: float
) -> None:
    found = by_coverage(units, share)
    enough = [t for t in ALL_THRESHOLDS if units.count(t)[0] >= share * len(units) - 1e-9]
    if enough:
        assert units.count(found)[0] == units.count(max(enough))[0]
    else:
        assert units.count(found)[0] == units.answered.sum()


@given(some_units, st.integers(0, 2**12))
@settings(max_examples=200, deadline=None)
def test_by_f1_is_the_best_of_all_thresholds(units: Units, bits: int) -> None:
    sufficient = units.right | np.array([bool(bits >> i & 1) for i in range(len(units))])
    f1 = units.right.astype(float) * 0.8

    def score(threshold: float) -> float:
        accept = units.answered & (units.confidence >= threshold)
        return float(np.where(accept, f1, ~sufficient).mean())

    found = by_f1(units, f1, sufficient)
    assert score(found) == pytest.approx(max(map(score, ALL_THRESHOLDS)))
