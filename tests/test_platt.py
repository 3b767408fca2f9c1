"""Platt calibration against an independent minimiser, and on data that break naive fits."""

import json

import numpy as np
import pytest
from scipy.optimize import minimize

from abstain import platt


def test_the_fit_minimises_platts_likelihood() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(size=(150, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, -3.0]
    labels = draw.random(150) < 1 / (1 + np.exp(-(values[:, 0] + (values[:, 1] - 100) / 20)))
    fitted = platt.fit(values, labels.tolist(), ("a", "b", "c"))

    positive = labels.sum()
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (150 - positive + 2))

    def loss(parameters: np.ndarray) -> float:
        odds = ((values - values.mean(0)) / values.std(0)) @ parameters[:3] + parameters[3]
        return float((np.logaddexp(0, odds) - target * odds).sum())

    best = minimize(loss, np.zeros(4), method="BFGS", tol=1e-10)
    odds = ((values - values.mean(0)) / values.std(0)) @ best.x[:3] + best.x[3]
    assert fitted.probability(values) == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)


def test_separable_data_give_finite_probabilities_that_are_not_certain() -> None:
    values = np.array([[0.0], [1.0], [2.0], [10.0], [11.0], [12.0]])
    fitted = platt.fit(values, [False] * 3 + [True] * 3, ("a",))
    found = fitted.probability(values)
    assert np.isfinite(found).all()
    assert (found[:3] < 0.3).all() and (found[3:] > 0.7).all()
    assert (found > 0.01).all() and (found < 0.99).all()


@pytest.mark.parametrize("label", [True, False])
def test_one_class_gives_its_smoothed_rate(label: bool) -> None:
    fitted = platt.fit(np.arange(8.0)[:, None], [label] * 8, ("a",))
    expected = 9 / 10 if label else 1 / 10
    assert fitted.probability(np.array([[3.0], [99.0]])) == pytest.approx([expected] * 2)


def test_no_rows_give_one_half() -> None:
    assert platt.fit(np.zeros((0, 1)), [], ("a",)).probability(np.zeros((1, 1))) == pytest.approx(
        0.5
    )


def test_a_constant_signal_does_no_harm() -> None:
    values = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    fitted = platt.fit(values, [False, False, True, True], ("constant", "useful"))
    found = fitted.probability(values)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


def test_it_is_stored_as_numbers_and_comes_back_the_same() -> None:
    values = np.random.default_rng(0).normal(size=(20, 2))
    fitted = platt.fit(values, (values[:, 0] > 0).tolist(), ("a", "b"))
    again = platt.Calibrator.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
