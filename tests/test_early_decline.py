"""What the sufficiency head declines is not generated, and nothing else changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from abstain.answerer import Answerer
from abstain.calibration import Calibration
from abstain.calibrator import Calibrator
from abstain.evidence import Evidence
from abstain.head import SufficiencyHead
from abstain.model import load_model
from abstain.predict import answer_all, route
from abstain.router import Threshold, verdict
from curate.contract import Contract
from curate.record import Row

CONTEXT = "The day pass costs 6 pounds and is valid for 24 hours. It is personal."
ROWS = [
    Row(question, context)
    for context in (CONTEXT, "The workshop opened in 2014.")
    for question in ("How much is it?", "How long is it valid?", "Who designed it, and when?")
]
CONSTANT = Calibrator("platt", ("p_abstain",), (0.0,), (1.0,), (0.0,), 1.0)


def calibration(bound: float | None) -> Calibration:
    evidence = Evidence(p_true=True, samples=2)
    return Calibration(CONSTANT, CONSTANT, Threshold(0.5), 0.5, evidence, bound, {})


@pytest.fixture(scope="module")
def made(tiny_model: Path) -> tuple[Any, SufficiencyHead]:
    torch.manual_seed(3)
    return load_model(str(tiny_model)), SufficiencyHead([2, 3], 32)


def test_only_what_the_head_lets_pass_is_generated_and_it_is_the_same(made: Any) -> None:
    loaded, head = made
    whole = answer_all(Answerer(loaded, Contract(), head, calibration(None)), ROWS)
    logits = sorted(answer.head_logit or 0.0 for answer in whole)
    bound = (logits[2] + logits[3]) / 2
    answerer = Answerer(loaded, Contract(), head, calibration(bound))
    early = answer_all(answerer, ROWS, early=True)
    assert sum(answer.skipped for answer in early) == 3
    for one, other in zip(early, whole, strict=True):
        assert one.head_logit == pytest.approx(other.head_logit, abs=1e-5)
        assert one.log_p_abstain == pytest.approx(other.log_p_abstain, abs=1e-4)
        assert one.skipped == ((other.head_logit or 0.0) < bound)
        if one.skipped:
            assert (one.text, one.abstained, one.tokens) == ("unanswerable", True, 0)
            assert one.samples is None and one.true_logit is None
        else:
            assert (one.text, one.samples) == (other.text, other.samples)
            assert one.true_logit == pytest.approx(other.true_logit, abs=1e-4)
    # Routing is the same, whether the answers were generated or not.
    late = answer_all(answerer, ROWS)
    assert not any(answer.skipped for answer in late)
    decided = [[d.rule for d in route(answerer, ROWS, found)[2]] for found in (early, late)]
    assert decided[0] == decided[1] and decided[0].count("head_declines") == 3


def test_all_may_be_declined(made: Any) -> None:
    loaded, head = made
    answerer = Answerer(loaded, Contract(), head, calibration(1e9))
    found = answer_all(answerer, ROWS, early=True)
    assert all(answer.skipped for answer in found)
    confidence, _, decisions = route(answerer, ROWS, found)
    assert not confidence.any() and {d.action for d in decisions} == {"decline"}


def test_without_a_head_or_a_bound_everything_is_generated(made: Any) -> None:
    loaded, _ = made
    answerer = Answerer(loaded, Contract(), None, calibration(0.0))
    assert not any(answer.skipped for answer in answer_all(answerer, ROWS[:2], early=True))


def test_the_head_speaks_first() -> None:
    assert verdict(True, 0.9, Threshold(0.5), head_declines=True).rule == "head_declines"
    assert not verdict(False, 0.9, Threshold(0.5), head_declines=True).passes
