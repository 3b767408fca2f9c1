"""Answers from kept prefixes are those without: texts, scores and evidence."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from abstain.answerer import Answerer, load_answerer
from abstain.evidence import DropoutSettings, Evidence
from abstain.predict import answer_all
from abstain.prefix_cache import PrefixCache
from abstain.signals import SIGNALS, available, matrix
from curate.contract import Contract
from curate.record import Row

GATES = "The gate of Arden is painted red. It was built in 1500 by the masons of Corby."
PASSES = "The day pass costs £6 and is valid for 24 hours. It is personal and may not be lent."
ROWS = [
    Row("What colour is the gate of Arden?", GATES),
    Row("How much is the day pass?", PASSES),
    Row("Who built it?", GATES, history=[{"role": "user", "content": "Hello."}]),
    Row("?", PASSES),
    Row("Are passes personal?", PASSES),
    Row("Why?", ""),
]
EVIDENCE = Evidence(p_true=True, samples=2, dropout=DropoutSettings(samples=3, top_k=2))


@pytest.fixture(scope="module")
def answerer(tiny_run: Path) -> Answerer:
    found = load_answerer(str(tiny_run), calibrated=False)
    torch.nn.init.normal_(found.loaded.model.get_output_embeddings().weight, std=0.1)
    return found


@pytest.mark.parametrize("scope", ["top-k", "suffix", "full"])
def test_answers_are_the_same_with_and_without(answerer: Answerer, scope: Any) -> None:
    assert EVIDENCE.dropout is not None
    answerer.gather(replace(EVIDENCE, dropout=replace(EVIDENCE.dropout, scope=scope)))
    answerer.prefixes = None
    before = answer_all(answerer, ROWS)
    answerer.prefixes = PrefixCache(2**30)
    for _ in range(2):
        # One at a time, as they come in service, so that each finds what the others have left;
        # then all at once, questions on several contexts side by side.
        after = [answer_all(answerer, [row])[0] for row in ROWS]
        together = answer_all(answerer, ROWS)
        assert [one.text for one in together] == [one.text for one in before]
        assert matrix(ROWS, together, available(before)) == pytest.approx(
            matrix(ROWS, before, available(before)), abs=2e-3, rel=2e-3
        )
        assert [one.text for one in after] == [one.text for one in before]
        names = available(before)
        assert names == available(after) and len(names) > 15
        one, other = matrix(ROWS, before, names), matrix(ROWS, after, names)
        assert one == pytest.approx(other, abs=2e-3, rel=2e-3)
    assert answerer.prefixes.hits >= len(ROWS) + 2


def test_no_questions_have_no_answers(answerer: Answerer) -> None:
    answerer.prefixes = PrefixCache(2**30)
    assert answer_all(answerer, []) == []


def test_the_real_model_says_the_same(real_model: Any) -> None:
    answerer = Answerer(real_model, Contract(), None)
    rows = [Row(row.question, row.context) for row in ROWS[:3]]
    before = answer_all(answerer, rows)
    answerer.prefixes = PrefixCache(2**30)
    for _ in range(2):
        after = [answer_all(answerer, [row])[0] for row in rows]
        assert [one.text for one in after] == [one.text for one in before]
        assert [one.log_p_abstain for one in after] == pytest.approx(
            [one.log_p_abstain for one in before], abs=1e-3
        )
    assert answerer.prefixes.hits == 4


def test_what_was_used_longest_ago_makes_room(answerer: Answerer) -> None:
    answerer.gather(Evidence())
    answerer.prefixes = PrefixCache(2**30)
    answer_all(answerer, [ROWS[0]])
    size = answerer.prefixes._size
    answerer.prefixes = PrefixCache(int(2.2 * size))
    for row in (ROWS[0], ROWS[1], ROWS[0], ROWS[5], ROWS[0]):
        answer_all(answerer, [row])
        assert answerer.prefixes._size <= answerer.prefixes.limit
    assert answerer.prefixes.hits == 2 and "p_abstain" in SIGNALS
    answerer.prefixes = PrefixCache(0)
    assert answer_all(answerer, [ROWS[0]]) and answerer.prefixes._size == 0
