"""Each signal against its formula, written out once more, and the names that switch them on."""

import math

import numpy as np
import pytest
from scipy.stats import entropy

from abstain.answer import Answer
from abstain.evidence import DropoutSettings, Evidence
from abstain.laplace import LaplaceScore
from abstain.mc_dropout import DropoutSamples
from abstain.signals import SIGNALS, available, chosen, matrix, needed
from curate.errors import UserError
from curate.record import Row

ROW = Row("How long is the pass valid?", "The day pass is valid for 24 hours.")
DROPOUT = DropoutSamples(
    log_likelihood=(-1.0, -2.0, -3.0),
    log_p_abstain=(-0.5, -1.5, -4.0),
    head_logits={"head": (1.0, 2.0, 6.0), "probe": (0.0, 0.0, 3.0)},
    tokens=2,
    predictive_entropy=0.9,
    expected_entropy=0.7,
    variation_ratio=1 / 3,
)
ANSWER = Answer(
    text="24 hours",
    abstained=False,
    token_log_p=(-0.1, -0.7),
    token_entropy=(0.2, 1.0),
    log_p_abstain=-2.0,
    log_p_abstain_first=-1.0,
    head_logit=0.3,
    probe_logit=-0.4,
    true_logit=1.5,
    samples=("24 hours", "24 Hours.", "a day", "unanswerable"),
    dropout=DROPOUT,
    laplace=LaplaceScore(2.0, 0.25),
)
ABSTENTION = Answer("unanswerable", True, (-0.2,), true_logit=1.5, log_p_abstain=-0.2)


def value(name: str, answer: Answer = ANSWER, row: Row = ROW) -> float:
    return float(matrix([row], [answer], [name])[0, 0])


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("p_abstain", -logit(math.exp(-2))),
        ("p_abstain_first", -logit(math.exp(-1))),
        ("sufficiency_head", 0.3),
        ("probe", -0.4),
        ("log_likelihood", -0.8),
        ("mean_log_likelihood", -0.4),
        ("least_token", -0.7),
        ("mean_entropy", -0.6),
        ("greatest_entropy", -1.0),
        ("p_true", 1.5),
        ("self_consistency", 0.5),
        ("cluster_entropy", -float(entropy([2, 1, 1]))),
        ("context_support", 1.0),
        ("question_overlap", 3 / 5),  # is, pass, valid of how long is pass valid
        ("mc_mean_log_likelihood", -1.0),
        ("mc_std_log_likelihood", -float(np.std([-0.5, -1.0, -1.5]))),
        ("mc_mean_p_abstain", -logit(float(np.mean(np.exp([-0.5, -1.5, -4]))))),
        ("mc_std_p_abstain", -float(np.std(np.exp([-0.5, -1.5, -4])))),
        ("mc_predictive_entropy", -0.9),
        ("mc_expected_entropy", -0.7),
        ("mc_mutual_information", -0.2),
        ("mc_variation_ratio", -1 / 3),
        ("mc_mean_head", 3.0),
        ("mc_std_head", -float(np.std([1, 2, 6]))),
        ("laplace_log_odds", 2 / math.sqrt(1 + math.pi / 32)),
        ("laplace_std", -0.5),
        ("mc_std_probe", -float(np.std([0, 0, 3]))),
    ],
)
def test_each_formula(name: str, expected: float) -> None:
    assert value(name) == pytest.approx(expected, abs=1e-12)


def test_every_signal_is_tested_above_and_says_what_it_is() -> None:
    [mark] = [m for m in test_each_formula.pytestmark if m.name == "parametrize"]  # type: ignore[attr-defined]
    assert {name for name, _ in mark.args[1]} == set(SIGNALS)
    for signal in SIGNALS.values():
        assert len(signal.value.__doc__ or "") > 30


def test_an_abstention_turns_p_true_and_has_no_support() -> None:
    assert value("p_true", ABSTENTION) == -1.5
    assert value("context_support", ABSTENTION) == 0.0


def test_support_counts_words_where_the_answer_is_no_span() -> None:
    scattered = Answer("valid hours only", False, (-0.1,))
    assert value("context_support", scattered) == pytest.approx(2 / 3)
    within_a_word = Answer("4", False, (-0.1,))  # of 24: not a span of words
    assert value("context_support", within_a_word) == 0.0


def test_a_certain_abstention_stays_finite() -> None:
    sure = Answer("unanswerable", True, (0.0,), log_p_abstain=0.0)
    assert math.isfinite(value("p_abstain", sure)) and value("p_abstain", sure) < -10


def test_only_signals_whose_evidence_every_answer_has_are_available() -> None:
    assert available([ANSWER]) == list(SIGNALS)
    names = available([ANSWER, ABSTENTION])
    assert "p_abstain" in names and "mc_std_head" not in names and "mean_entropy" not in names
    with pytest.raises(UserError, match="'mc_std_head' cannot be had"):
        matrix([ROW], [ABSTENTION], ["mc_std_head"])


def test_signals_are_switched_on_by_name_and_group() -> None:
    assert chosen("p_true, probe") == ("p_true", "probe")
    assert chosen("all") == tuple(SIGNALS)
    free = chosen("free,p_true")
    assert free[-1] == "p_true" and "self_consistency" not in free
    with pytest.raises(UserError, match="unknown signal 'p_ture'; there are free, all, p_abstain"):
        chosen("p_ture")
    with pytest.raises(UserError, match="no signal named"):
        chosen(" , ")


def test_only_needed_evidence_is_gathered_and_costs_are_declared() -> None:
    most = Evidence(p_true=True, samples=7, dropout=DropoutSettings(20, "top-k", 3))
    assert needed(["probe", "least_token"], most) == Evidence()
    assert needed(["p_true"], most) == Evidence(p_true=True)
    assert needed(["mc_std_head"], most).dropout == most.dropout
    assert SIGNALS["probe"].passes(most, 30) == 0
    assert SIGNALS["p_true"].passes(most, 30) == 1
    assert SIGNALS["self_consistency"].passes(most, 30) == 7
    assert SIGNALS["mc_std_head"].passes(most, 30) == pytest.approx(2)
    assert Evidence.from_json(most.to_json()) == most
