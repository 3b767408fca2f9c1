"""Calibrators against independent minimisers, and on data that break naive fits."""

import json
from typing import get_args

import numpy as np
import pytest
from scipy.optimize import minimize

from abstain import calibrator
from abstain.calibrator import Calibrator, Labels, Method, fit
from abstain.signals import Array

METHODS: tuple[Method, ...] = get_args(Method)


def noisy(rows: int = 300) -> tuple[Array, Labels]:
    """One log-odds that is twice too sure, and labels drawn from the true one."""
    draw = np.random.default_rng(5)
    true = draw.normal(size=rows) * 2
    return 2 * true[:, None], draw.random(rows) < calibrator.sigmoid(true)


def losses(p: Array, target: Array) -> float:
    return float(-(target * np.log(p) + (1 - target) * np.log(1 - p)).sum())


def test_platt_minimises_his_likelihood_over_several_signals() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(size=(150, 3)) * [1.0, 20.0, 0.1] + [0.0, 100.0, -3.0]
    labels = draw.random(150) < 1 / (1 + np.exp(-(values[:, 0] + (values[:, 1] - 100) / 20)))
    fitted = fit("platt", values, labels, ("a", "b", "c"))

    positive = labels.sum()
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (150 - positive + 2))

    def loss(parameters: Array) -> float:
        odds = ((values - values.mean(0)) / values.std(0)) @ parameters[:3] + parameters[3]
        return float((np.logaddexp(0, odds) - target * odds).sum())

    best = minimize(loss, np.zeros(4), method="BFGS", tol=1e-10)
    odds = ((values - values.mean(0)) / values.std(0)) @ best.x[:3] + best.x[3]
    assert fitted.probability(values) == pytest.approx(1 / (1 + np.exp(-odds)), abs=1e-4)


def test_temperature_minimises_log_loss_and_finds_the_true_one() -> None:
    values, labels = noisy(4000)
    fitted = fit("temperature", values, labels, ("a",))
    found = losses(fitted.probability(values), labels.astype(float))
    for factor in (0.98, 1.02):
        other = calibrator.sigmoid(values[:, 0] / (fitted.scale[0] * factor))
        assert found <= losses(other, labels.astype(float))
    assert fitted.scale[0] == pytest.approx(2.0, abs=0.25)
    assert fitted.probability(np.zeros((1, 1))) == pytest.approx(0.5)


def test_beta_calibration_minimises_its_likelihood() -> None:
    values, labels = noisy()
    fitted = fit("beta", values, labels, ("a",))
    z = fitted.score(values)
    s = calibrator.sigmoid(z)
    positive = labels.sum()
    target = np.where(labels, (positive + 1) / (positive + 2), 1 / (len(z) - positive + 2))

    def loss(parameters: Array) -> float:
        a, b, c = parameters
        odds = a * np.log(s) - b * np.log1p(-s) + c
        return float((np.logaddexp(0, odds) - target * odds).sum())

    bounds = [(0, None), (0, None), (None, None)]
    best = minimize(loss, [1.0, 1.0, 0.0], method="L-BFGS-B", bounds=bounds, tol=1e-12)
    assert loss(np.array(fitted.beta)) == pytest.approx(best.fun, rel=1e-6)
    assert fitted.probability(values) == pytest.approx(
        calibrator.sigmoid(
            fitted.beta[0] * np.log(s) - fitted.beta[1] * np.log1p(-s) + fitted.beta[2]
        )
    )


def test_isotonic_is_scikit_learns_and_never_certain() -> None:
    from sklearn.isotonic import IsotonicRegression

    values, labels = noisy()
    fitted = fit("isotonic", values, labels, ("a",))
    reference = IsotonicRegression(out_of_bounds="clip").fit(values[:, 0], labels)
    expected = np.clip(reference.predict(values[:, 0]), 1 / 302, 301 / 302)
    assert fitted.probability(values) == pytest.approx(expected, abs=1e-9)
    far = fitted.probability(np.array([[-1e9], [1e9]]))
    assert 0 < far[0] < far[1] < 1


def test_a_combination_shrinks_as_its_penalty_grows() -> None:
    draw = np.random.default_rng(2)
    values = draw.normal(size=(80, 6))
    labels = draw.random(80) < calibrator.sigmoid(values[:, 0])
    names = tuple("abcdef")
    sizes = [
        float(np.square(fit("combination", values, labels, names, penalty).weight).sum())
        for penalty in (0.1, 10, 1000)
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize("method", METHODS)
def test_every_method_rises_with_its_signal(method: Method) -> None:
    values, labels = noisy()
    fitted = fit(method, values, labels, ("a",))
    grid = fitted.probability(np.linspace(-8, 8, 50)[:, None])
    assert (np.diff(grid) >= -1e-12).all() and grid[-1] > grid[0]


@pytest.mark.parametrize("method", METHODS)
def test_separable_data_give_finite_probabilities(method: Method) -> None:
    values = np.array([[-12.0], [-11.0], [-10.0], [10.0], [11.0], [12.0]])
    fitted = fit(method, values, np.array([False] * 3 + [True] * 3), ("a",))
    found = fitted.probability(values)
    assert np.isfinite(found).all()
    assert (found[:3] < 0.3).all() and (found[3:] > 0.7).all()
    if method != "temperature":  # it has no way of knowing how few rows it has seen
        assert (found > 0.01).all() and (found < 0.99).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("label", [True, False])
def test_one_class_gives_its_smoothed_rate(method: Method, label: bool) -> None:
    fitted = fit(method, np.arange(8.0)[:, None], np.array([label] * 8), ("a",))
    expected = 9 / 10 if label else 1 / 10
    assert fitted.probability(np.array([[3.0], [99.0]])) == pytest.approx([expected] * 2)


def test_no_rows_give_one_half() -> None:
    fitted = fit("platt", np.zeros((0, 1)), np.zeros(0, bool), ("a",))
    assert fitted.probability(np.zeros((1, 1))) == pytest.approx(0.5)


def test_a_constant_signal_does_no_harm() -> None:
    values = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    fitted = fit("platt", values, np.array([False, False, True, True]), ("constant", "useful"))
    found = fitted.probability(values)
    assert np.isfinite(found).all()
    assert (np.diff(found) > 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_all_ties_give_one_probability(method: Method) -> None:
    labels = np.array([True, False, True, True])
    fitted = fit(method, np.full((4, 1), 3.0), labels, ("a",))
    found = fitted.probability(np.full((4, 1), 3.0))
    assert len(set(found)) == 1 and 0.5 < found[0] < 1


@pytest.mark.parametrize("method", METHODS)
def test_it_is_stored_as_numbers_and_comes_back_the_same(method: Method) -> None:
    values, labels = noisy()
    fitted = fit(method, values, labels, ("a",))
    again = Calibrator.from_json(json.loads(json.dumps(fitted.to_json())))
    assert again == fitted
