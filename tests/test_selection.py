"""Calibrators are chosen by what they say of rows that they have not seen."""

import numpy as np
import pytest
from sklearn.metrics import log_loss

from abstain import selection
from abstain.calibrator import sigmoid

NAMES = ["p_abstain", "mean_log_likelihood", "sufficiency_head"]


def test_the_useful_signal_is_chosen_and_its_loss_is_scikit_learns() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(400, 3)) * 2
    labels = draw.random(400) < sigmoid(values[:, 2])
    found = selection.choose(values, labels, NAMES, [f"g{i // 4}" for i in range(400)])
    assert "sufficiency_head" in found.calibrator.signals
    assert found.tried.log_loss == pytest.approx(log_loss(labels, found.probability))
    assert found.table == sorted(found.table, key=lambda entry: entry["log_loss"])
    assert found.table[0]["log_loss"] < 0.6


def test_signals_that_complete_each_other_are_combined() -> None:
    draw = np.random.default_rng(1)
    values = draw.normal(size=(600, 3)) * 2
    labels = draw.random(600) < sigmoid(values.sum(1))
    found = selection.choose(values, labels, NAMES, [f"g{i // 4}" for i in range(600)])
    assert found.calibrator.method == "combination" and len(found.calibrator.signals) == 3


def test_a_groups_own_rows_never_calibrate_it() -> None:
    # Every group has a luck of its own, which its signal tells: worthless for another group.
    draw = np.random.default_rng(2)
    luck = np.repeat(draw.random(60) < 0.5, 10)
    values = np.repeat(draw.normal(size=60), 10)[:, None]
    groups = [f"g{i // 10}" for i in range(600)]
    found = selection.choose(values, luck, ["p_abstain"], groups).table[0]["log_loss"]
    assert found > 0.68  # log 2 = 0.693 is chance
    divided = [str(i) for i in range(600)]
    promised = selection.choose(values, luck, ["p_abstain"], divided).table[0]["log_loss"]
    assert promised < found - 0.02


def test_few_rows_of_one_group_are_fitted_without_folds() -> None:
    values, labels = np.array([[0.0], [1.0], [2.0]]), np.array([False, True, True])
    found = selection.choose(values, labels, ["p_abstain"], ["g"] * 3)
    assert np.isfinite(found.probability).all()
    nothing = selection.choose(np.zeros((0, 1)), np.zeros(0, bool), ["p_abstain"], [])
    assert nothing.calibrator.probability(np.zeros((1, 1))) == pytest.approx(0.5)


def test_a_lucky_single_signal_does_not_beat_the_combination() -> None:
    # Four equally good signals: on few rows one of them wins by luck, and which one, no one knows.
    # P(True) costs a pass, and says what the first one has said.
    taken = []
    for seed in range(12):
        draw = np.random.default_rng(seed)
        labels = draw.random(60) < 0.5
        names = ["p_abstain", "mean_log_likelihood", "sufficiency_head", "least_token", "p_true"]
        values = draw.normal(size=(60, 5)) + 0.5 * labels[:, None]
        values[:, 4] = values[:, 0] + draw.normal(size=60) * 0.3
        found = selection.choose(values, labels, names, [f"g{i // 2}" for i in range(60)])
        taken.append(found.calibrator)
        assert found.tried.behind <= max(found.tried.standard_error, selection.WORTHWHILE)
        assert found.to_json()["candidates"][0]["behind"] == 0
    combined = [calibrator for calibrator in taken if calibrator.method == "combination"]
    assert len(combined) >= 10
    assert all("p_true" not in calibrator.signals for calibrator in combined)


def test_a_signal_that_costs_is_not_taken_for_a_free_one_that_is_as_good() -> None:
    draw = np.random.default_rng(5)
    labels = draw.random(300) < 0.5
    entropy = np.where(labels, 2.0, -2.0) + draw.normal(size=300)
    noise = draw.normal(size=(300, 2)) * 50
    # The dear one is the better by so little, and so surely, that only its size speaks against it.
    values = np.column_stack([entropy, entropy + np.where(labels, 0.02, -0.02), noise])
    names = ["mean_entropy", "mc_predictive_entropy", "p_abstain", "least_token"]
    found = selection.choose(values, labels, names, [str(i) for i in range(300)])
    assert "mc_predictive_entropy" not in found.calibrator.signals
    assert "mean_entropy" in found.calibrator.signals


def test_a_single_signal_that_is_surely_better_is_taken() -> None:
    draw = np.random.default_rng(3)
    labels = draw.random(400) < 0.5
    values = np.stack([np.where(labels, 6.0, -6.0), *draw.normal(size=(2, 400)) * 5], 1)
    values[:, 1] = np.where(draw.random(400) < 0.9, values[:, 1], 200.0)
    found = selection.choose(values, labels, NAMES, [str(i) for i in range(400)])
    assert found.calibrator.signals == ("p_abstain",)


def test_the_standard_error_counts_groups_not_rows() -> None:
    # Ten copies of each row say no more than the row alone.
    draw = np.random.default_rng(4)
    labels = draw.random(80) < 0.5
    values = draw.normal(size=(80, 2)) + labels[:, None] * np.array([0.8, 0.4])
    names = NAMES[:2]
    once = selection.choose(values, labels, names, [str(i) for i in range(80)])
    ten = np.repeat(np.arange(80), 10)
    copied = selection.choose(values[ten], labels[ten], names, [str(i) for i in ten])

    def error(found: selection.Chosen) -> float:
        entry = next(e for e in found.table if e["signals"] == ["mean_log_likelihood"])
        return float(entry["standard_error"])

    assert error(copied) == pytest.approx(error(once), rel=0.3)
