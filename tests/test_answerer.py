"""Packed answers are the answers that `generate` gives row by row, with the same scores."""

from pathlib import Path
from typing import Any

import pytest
import torch

from abstain.answerer import Answerer, load_answerer
from abstain.head import SufficiencyHead, middle_layers
from abstain.model import load_model
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row

CONTEXTS = (
    "The day pass costs £6 and is valid for 24 hours. It is personal and may not be lent.",
    "The workshop opened in 2014 in Tannery Lane. It repairs private bikes on Wednesdays.",
    "",
)
QUESTIONS = (
    "How much is the day pass?",
    "When did the workshop open?",
    "Who may use a pass?",
    "On which day are private bikes repaired, and where does one bring them?",
)
ROWS = [Row(question=q, context=c) for q in QUESTIONS for c in CONTEXTS]


def score_alone(loaded: Any, prompt: list[int], continuation: list[int]) -> float:
    """Log-likelihood of a continuation by one plain forward pass."""
    with torch.no_grad():
        logits = loaded.model(torch.tensor([[*prompt, *continuation]])).logits[0]
    log_p = logits[len(prompt) - 1 : -1].log_softmax(-1)
    return float(log_p[range(len(continuation)), continuation].sum())


def check(loaded: Any, answerer: Answerer, max_new_tokens: int) -> None:
    found = dict(pair for pack in answerer.answer(ROWS, max_new_tokens) for pair in pack)
    assert sorted(found) == list(range(len(ROWS)))
    for number, row in enumerate(ROWS):
        prompt = answerer.prompt_tokens(row, 0)
        generated = loaded.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=loaded.end_token_id,
            pad_token_id=loaded.end_token_id,
        )[0, len(prompt) :].tolist()
        answer = found[number]
        assert answer.tokens == len(generated)
        assert answer.text == loaded.tokenizer.decode(generated, skip_special_tokens=True).strip()
        assert answer.log_likelihood == pytest.approx(
            score_alone(loaded, prompt, generated), abs=2e-3
        )
        phrase = loaded.tokenizer.encode(answerer.contract.abstention_phrase)
        expected = score_alone(loaded, prompt, [*phrase, loaded.end_token_id])
        assert answer.log_p_abstain == pytest.approx(expected, rel=1e-4, abs=1e-3)
        if answerer.head is not None:
            with torch.no_grad():
                states = loaded.model(torch.tensor([prompt]), output_hidden_states=True)
                layers = [states.hidden_states[k][0, -1] for k in answerer.head.layers]
                logit = answerer.head(torch.stack(layers)[None])
            assert answer.head_logit == pytest.approx(float(logit), abs=1e-3)


def test_answers_equal_generate_on_the_real_model(real_model: Any) -> None:
    torch.manual_seed(0)
    head = SufficiencyHead(middle_layers(30), 576)
    check(real_model, Answerer(real_model, Contract(), head), max_new_tokens=12)


def test_answers_equal_generate_without_packing(tiny_model: Path) -> None:
    loaded = load_model(str(tiny_model))
    answerer = Answerer(loaded, Contract(), None)
    answerer.reader.packing = False
    check(loaded, answerer, max_new_tokens=6)


def test_a_model_that_must_go_row_by_row_answers_all_the_same(
    tmp_path: Path, tiny_model: Path
) -> None:
    from transformers import AutoTokenizer, BloomConfig, BloomForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=2, n_head=2)
    BloomForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path))
    answerer = Answerer(loaded, Contract(), None)
    assert not answerer.reader.packing
    check(loaded, answerer, max_new_tokens=4)


def test_a_context_beyond_the_window_is_refused_by_name(tiny_model: Path) -> None:
    answerer = load_answerer(str(tiny_model))
    row = Row(question="How long?", context="very long " * 2000, id="row-7")
    with pytest.raises(UserError, match=r"row-7: 4,\d{3} tokens and 64 for .* reads at most 1,024"):
        list(answerer.answer([row]))


def test_the_window_must_have_room_for_the_answer_too(tiny_model: Path) -> None:
    answerer = load_answerer(str(tiny_model))
    row = Row(question="How long?", context="very long " * 480, id="row-8")
    length = len(answerer.prompt_tokens(row, 0))
    assert 1024 - 64 < length < 1024
    with pytest.raises(UserError, match="row-8"):
        list(answerer.answer([row]))
    assert list(answerer.answer([row], max_new_tokens=1024 - length))
