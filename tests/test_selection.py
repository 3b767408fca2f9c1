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
    assert found.table[0]["log_loss"] == pytest.approx(log_loss(labels, found.probability))
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
