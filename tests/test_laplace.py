"""The Laplace approximation against finite differences and a plain computation of its formula."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from abstain.answerer import Answerer
from abstain.evidence import Evidence
from abstain.laplace import Gradients, Laplace, LaplaceScore, fit_laplace, load_laplace
from abstain.model import load_model
from abstain.predict import answer_all
from abstain.signals import log_odds
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row
from train.methods import lora
from train.settings import TrainSettings

CONTEXT = "The day pass costs 6 pounds and is valid for 24 hours. It is personal."
ROWS = [
    Row(question, CONTEXT)
    for question in ("How much is the day pass?", "How long is it valid?", "Who designed it?")
]


@pytest.fixture(scope="module")
def answerer(tiny_model: Path) -> Answerer:
    loaded = load_model(str(tiny_model))
    torch.manual_seed(1)
    model = lora.wrap(loaded.model, TrainSettings(rank=2)).model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(False)
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    loaded.model = model
    return Answerer(loaded, Contract(), None)


def plain_value(answerer: Answerer, row: Row) -> float:
    """f by one forward pass over the whole prompt and phrase."""
    loaded = answerer.loaded
    prompt = answerer.prompt_tokens(row, 0)
    phrase = loaded.tokenizer.encode(answerer.contract.abstention_phrase)
    tail = [*phrase, loaded.end_token_id]
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*prompt, *tail]])).logits[0]
    log_p = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return -log_odds(float(log_p[range(len(tail)), tail].sum()))


def test_values_are_those_of_whole_passes(answerer: Answerer) -> None:
    for blocks in (1, 2):
        gradients = answerer.gradients(blocks)
        traces = list(answerer.traces(ROWS, gradients))
        for row, (item, trace) in zip(ROWS, traces, strict=True):
            value, gradient = gradients.of(item, trace)
            assert value == pytest.approx(plain_value(answerer, row), abs=1e-3)
            assert len(gradient) == len(gradients.parameters) == 14 * blocks


def test_gradients_are_finite_differences(answerer: Answerer) -> None:
    gradients = answerer.gradients(1)
    item, trace = next(iter(answerer.traces(ROWS, gradients)))
    _, found = gradients.of(item, trace)
    # In the highest block, nothing below changes: what was computed there stays valid.
    draw = torch.Generator().manual_seed(0)
    parameters = list(gradients.parameters.values())
    direction = [torch.randn(p.shape, generator=draw) for p in parameters]
    slope = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
    step, values = 2e-3, []
    for sign in (1, -1):
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.add_(d, alpha=sign * step)
        values.append(gradients.of(item, trace)[0])
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.sub_(d, alpha=sign * step)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * step), rel=0.02)


def test_variance_is_the_formula_over_curvature(answerer: Answerer) -> None:
    gradients = answerer.gradients(2)
    traces = list(answerer.traces(ROWS, gradients))
    labels = np.array([True, True, False])
    fitted = fit_laplace(gradients, traces, 30, traces, labels)
    flat = [
        (value, torch.cat([g.flatten() for g in gradient]).double())
        for value, gradient in (gradients.of(item, trace) for item, trace in traces)
    ]
    curvature = torch.zeros_like(flat[0][1])
    for value, gradient in flat:
        p = 1 / (1 + math.exp(-value))
        curvature += 30 / 3 * p * (1 - p) * gradient**2
    for (value, gradient), (item, trace) in zip(flat, traces, strict=True):
        score = fitted.score(item, trace)
        expected = float((gradient**2 / (curvature + fitted.precision)).sum())
        assert score.log_odds == pytest.approx(value, abs=1e-6)
        assert score.variance == pytest.approx(expected, rel=1e-4)
        assert abs(score.shrunk) < abs(score.log_odds)


def test_it_becomes_a_signal_and_leaves_no_gradients(answerer: Answerer, tmp_path: Path) -> None:
    gradients = answerer.gradients(2)
    traces = list(answerer.traces(ROWS, gradients))
    fitted = fit_laplace(gradients, traces, 3, traces, np.array([True, False, False]))
    answerer.laplace = fitted
    answerer.gather(Evidence(laplace=2))
    scores = [answer.laplace for answer in answer_all(answerer, ROWS)]
    expected = [fitted.score(item, trace) for item, trace in traces]
    for score, other in zip(scores, expected, strict=True):
        assert isinstance(score, LaplaceScore)
        assert score.variance == pytest.approx(other.variance, rel=1e-3)
    assert not any(p.requires_grad for p in answerer.loaded.model.parameters())
    fitted.save(tmp_path)
    again = load_laplace(tmp_path, answerer.loaded.model, answerer.reader.phrase)
    assert isinstance(again, Laplace) and again.precision == fitted.precision
    for one, other_sum in zip(again.curvature, fitted.curvature, strict=True):
        assert torch.equal(one, other_sum)


def test_what_cannot_be_had_is_refused(
    answerer: Answerer, tiny_model: Path, tmp_path: Path
) -> None:
    bare = Answerer(load_model(str(tiny_model)), Contract(), None)
    with pytest.raises(UserError, match="needs a run with a LoRA adapter"):
        bare.gradients(1)
    with pytest.raises(UserError, match="has no Laplace approximation"):
        bare.gather(Evidence(laplace=2))
    with pytest.raises(UserError, match="9 blocks: give 1 to 4"):
        answerer.gradients(9)
    made: Any = Gradients(answerer.loaded.model, answerer.reader.phrase, 1)
    Laplace(made, [torch.zeros_like(p) for p in made.parameters.values()], 1.0).save(tmp_path)
    smaller = lora.wrap(load_model(str(tiny_model)).model, TrainSettings()).model
    for module in smaller.get_base_model().get_decoder().layers[3].modules():
        if hasattr(module, "lora_A"):
            del module.lora_A["default"]
            break
    with pytest.raises(UserError, match="belongs to another adapter"):
        load_laplace(tmp_path, smaller, answerer.reader.phrase)
