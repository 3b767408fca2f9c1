"""MC dropout against T plain passes under the same masks, whatever the batch."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abstain.answer import Answer
from abstain.answerer import Answerer, load_answerer
from abstain.evidence import DropoutSettings, Evidence, Scope
from abstain.model import load_model
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, digest
from train.methods import lora
from train.settings import TrainSettings

CONTEXT = "The day pass costs 6 pounds and is valid for 24 hours. It is personal."
OTHER = "The workshop opened in 2014 in Tannery Lane."
ROWS = [
    Row("How much is the day pass?", CONTEXT),
    Row("How long is it valid, and from when on?", CONTEXT),
    Row("What is it?", CONTEXT),
    Row("When did the workshop open?", OTHER),
]
SAMPLES = 3


def wrapped(tiny_model: Path, **settings: Any) -> Answerer:
    """An answerer whose adapter does something: LoRA starts as the identity."""
    loaded = load_model(str(tiny_model))
    torch.manual_seed(1)
    model = lora.wrap(loaded.model, TrainSettings(dropout=0.2, rank=4, **settings)).model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    loaded.model = model
    return Answerer(loaded, Contract(), None)


@pytest.fixture(scope="module")
def answerer(tiny_model: Path) -> Answerer:
    from abstain.head import SufficiencyHead

    made = wrapped(tiny_model)
    made.loaded.model.double()  # what does not depend on the batch is then equal to many digits
    torch.manual_seed(2)
    return Answerer(made.loaded, Contract(), SufficiencyHead([1, 3], 32))


def answers(answerer: Answerer, rows: list[Row], settings: DropoutSettings | None) -> list[Answer]:
    answerer.gather(Evidence(dropout=settings))
    found = dict(pair for pack in answerer.answer(rows, 5) for pair in pack)
    return [found[i] for i in range(len(rows))]


class Fixed(nn.Module):
    """A mask for every token of one sequence."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs * self.mask[: inputs.shape[1]]


def reference(
    answerer: Answerer, row: Row, said: list[int], settings: DropoutSettings, sample: int
) -> tuple[float, float, float, list[float]]:
    """One sample by plain forward passes: phrase, answer, head, entropies of the answer's tokens.

    The masks are drawn anew, by their definition.
    """
    model, blocks = answerer.loaded.model, 4
    prompt = answerer.prompt_tokens(row, 0)
    bare = answerer.prompt_tokens(replace(row, question="?"), 0)
    shared = next(i for i, (a, b) in enumerate(zip(prompt, bare, strict=False)) if a != b)
    first = {"full": 0, "suffix": shared, "top-k": len(prompt) - 1}[settings.scope]
    name = digest(row.context, row.question, repr(row.history))
    key = hashlib.sha256(f"{settings.seed}/{name}/{sample}".encode()).digest()[:16]
    draw = np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))
    places = [(n, m) for n, m in model.named_modules() if hasattr(m, "lora_dropout")]
    before = [module.lora_dropout["default"] for _, module in places]
    lowest = blocks - settings.top_k if settings.scope == "top-k" else 0
    try:
        for number, (path, module) in list(enumerate(places))[::-1]:
            block = int(path.split(".layers.")[1].split(".")[0])
            mask = torch.ones(1024, module.in_features)
            if block >= lowest:
                kept = draw.random((1, module.in_features), dtype=np.float32) >= before[number].p
                mask[first:] = torch.from_numpy(kept.astype(np.float32) / np.float32(0.8))
            module.lora_dropout["default"] = Fixed(mask)

        def score(tail: list[int]) -> tuple[float, Tensor, Any]:
            with torch.no_grad():
                out = model(torch.tensor([[*prompt, *tail]]), output_hidden_states=True)
            log_p = out.logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            return float(log_p[range(len(tail)), tail].sum()), log_p, out.hidden_states

        phrase = answerer.loaded.tokenizer.encode(answerer.contract.abstention_phrase)
        p_phrase, _, _ = score([*phrase, answerer.loaded.end_token_id])
        p_said, log_p, states = score(said)
        head = 0.0
        if answerer.head is not None:
            at = [states[layer][0, len(prompt) - 1] for layer in answerer.head.layers]
            head = float(answerer.head(torch.stack(at)[None]).detach())
        entropies = -(log_p.exp() * log_p).sum(-1)
        return p_phrase, p_said, head, entropies.tolist()
    finally:
        for (_, module), dropout in zip(places, before, strict=True):
            module.lora_dropout["default"] = dropout


def generated(answerer: Answerer, row: Row) -> list[int]:
    prompt = answerer.prompt_tokens(row, 0)
    end = answerer.loaded.end_token_id
    found = answerer.loaded.model.generate(
        input_ids=torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=5,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=end,
    )
    return list(found[0, len(prompt) :].tolist())


@pytest.mark.parametrize(
    ("scope", "top_k"), [("full", 2), ("suffix", 2), ("top-k", 1), ("top-k", 3), ("top-k", 4)]
)
def test_each_scope_is_t_separate_passes_under_the_same_masks(
    answerer: Answerer, scope: Scope, top_k: int
) -> None:
    settings = DropoutSettings(SAMPLES, scope, top_k)
    for row, answer in zip(ROWS, answers(answerer, ROWS, settings), strict=True):
        found = answer.dropout
        assert found is not None
        said = generated(answerer, row)
        entropies = []
        for sample in range(SAMPLES):
            phrase, likelihood, head, entropy = reference(answerer, row, said, settings, sample)
            assert found.log_p_abstain[sample] == pytest.approx(phrase, abs=1e-5, rel=1e-5)
            assert found.log_likelihood[sample] == pytest.approx(likelihood, abs=1e-5, rel=1e-5)
            assert found.head_logits["head"][sample] == pytest.approx(head, abs=1e-5, rel=1e-6)
            entropies.append(np.mean(entropy))
        assert found.expected_entropy == pytest.approx(np.mean(entropies), abs=1e-5, rel=1e-6)
        assert found.predictive_entropy >= found.expected_entropy - 1e-6  # BALD is not negative
        assert len(set(found.log_likelihood)) == SAMPLES
        assert 0 <= found.variation_ratio <= 1 - 1 / SAMPLES


@pytest.mark.parametrize("scope", ["suffix", "top-k"])
@pytest.mark.parametrize("mask", ["shared", "token"])
def test_a_seed_gives_the_same_samples_whatever_is_in_the_batch(
    answerer: Answerer, scope: Scope, mask: Any
) -> None:
    settings = DropoutSettings(SAMPLES, scope, 2, mask)
    together = answers(answerer, ROWS, settings)
    for number in (2, 0, 3):
        [alone] = answers(answerer, [ROWS[number]], settings)
        one, other = alone.dropout, together[number].dropout
        assert one is not None and other is not None
        assert one.log_likelihood == pytest.approx(other.log_likelihood, abs=1e-5, rel=1e-6)
        assert one.log_p_abstain == pytest.approx(other.log_p_abstain, abs=1e-5, rel=1e-6)
    [moved] = answers(answerer, ROWS[:1], replace(settings, seed=14))
    assert moved.dropout is not None and together[0].dropout is not None
    assert moved.dropout.log_likelihood != pytest.approx(together[0].dropout.log_likelihood)


def test_small_chunks_change_nothing(answerer: Answerer, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DropoutSettings(8, "top-k", 2)
    whole = [answer.dropout for answer in answers(answerer, ROWS, settings)]
    monkeypatch.setattr("abstain.mc_dropout.MAX_TOKENS", 40)
    for one, answer in zip(whole, answers(answerer, ROWS, settings), strict=True):
        assert one is not None and answer.dropout is not None
        assert answer.dropout.log_likelihood == pytest.approx(
            one.log_likelihood, abs=1e-5, rel=1e-6
        )
        assert answer.dropout.predictive_entropy == pytest.approx(
            one.predictive_entropy, abs=1e-5, rel=1e-6
        )


def test_rows_with_and_without_history_share_a_pack(answerer: Answerer) -> None:
    turns = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Yes."}]
    rows = [ROWS[0], replace(ROWS[1], history=turns), replace(ROWS[2], question="? what is it")]
    for scope in ("suffix", "top-k"):
        settings = DropoutSettings(SAMPLES, scope, 2)
        for order in (rows, rows[::-1]):
            together = answers(answerer, order, settings)
            for row, answer in zip(order, together, strict=True):
                [alone] = answers(answerer, [row], settings)
                assert alone.dropout is not None and answer.dropout is not None
                assert answer.dropout.log_p_abstain == pytest.approx(
                    alone.dropout.log_p_abstain, abs=1e-5, rel=1e-6
                )


def test_a_model_that_cannot_pack_is_told_which_scope_is_left(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = wrapped(tiny_model)
    monkeypatch.setattr("abstain.mc_dropout.supports_packing", lambda _: False)
    with pytest.raises(UserError, match="use --mc-scope full"):
        made.gather(Evidence(dropout=DropoutSettings(SAMPLES, "top-k", 2)))
    made.gather(Evidence(dropout=DropoutSettings(SAMPLES, "full")))


def test_token_masks_differ_from_token_to_token(answerer: Answerer) -> None:
    token, shared = (
        answers(answerer, ROWS[:1], DropoutSettings(SAMPLES, "suffix", mask=mask))[0].dropout
        for mask in ("token", "shared")
    )
    assert token is not None and shared is not None
    assert token.log_likelihood != pytest.approx(shared.log_likelihood)


def test_the_model_is_left_as_it_was(answerer: Answerer) -> None:
    model = answerer.loaded.model
    modules, blocks = dict(model.named_modules()), list(model.modules())
    before = answers(answerer, ROWS, None)
    answers(answerer, ROWS, DropoutSettings(SAMPLES, "top-k", 2))
    assert dict(model.named_modules()) == modules and list(model.modules()) == blocks
    assert not any(module.training for module in model.modules())
    after = answers(answerer, ROWS, None)
    assert [a.token_log_p for a in after] == [a.token_log_p for a in before]


def test_it_is_left_as_it_was_when_sampling_fails(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = dict(answerer.loaded.model.named_modules())

    def fail(*_: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr("abstain.mc_dropout.McDropout._add", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        answers(answerer, ROWS, DropoutSettings(SAMPLES, "top-k", 2))
    assert dict(answerer.loaded.model.named_modules()) == modules


def test_blocks_that_cannot_be_skipped_are_run_with_the_same_result(
    answerer: Answerer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DropoutSettings(SAMPLES, "top-k", 2)
    fast = answers(answerer, ROWS, settings)
    monkeypatch.setattr("abstain.mc_dropout.can_skip", lambda *_: False)
    for one, other in zip(fast, answers(answerer, ROWS, settings), strict=True):
        assert one.dropout is not None and other.dropout is not None
        assert one.dropout.log_p_abstain == pytest.approx(
            other.dropout.log_p_abstain, abs=1e-5, rel=1e-6
        )


def test_without_packing_there_are_complete_passes(tiny_model: Path) -> None:
    made = wrapped(tiny_model)
    row = ROWS[0]
    [packed] = answers(made, [row], DropoutSettings(SAMPLES, "full"))
    made.reader.packing = False
    made.gather(Evidence(dropout=DropoutSettings(SAMPLES, "full")))
    assert made._dropout is not None
    made._dropout.packing = False
    [(_, alone)] = next(iter(made.answer([row], 5)))
    assert packed.dropout is not None and alone.dropout is not None
    assert alone.dropout.log_likelihood == pytest.approx(
        packed.dropout.log_likelihood, abs=1e-5, rel=1e-6
    )


def test_a_model_without_dropout_is_refused(tiny_model: Path) -> None:
    settings = Evidence(dropout=DropoutSettings(SAMPLES))
    with pytest.raises(UserError, match="needs a run with an adapter that has dropout"):
        load_answerer(str(tiny_model)).gather(settings)
    with pytest.raises(UserError, match="train with `dropout` above 0"):
        loaded = load_model(str(tiny_model))
        loaded.model = lora.wrap(loaded.model, TrainSettings(dropout=0.0)).model.eval()
        Answerer(loaded, Contract(), None).gather(settings)
    merged = wrapped(tiny_model)
    merged.loaded.model.merge_adapter()
    with pytest.raises(UserError, match="unmerged"):
        merged.gather(settings)


def test_more_top_blocks_than_there_are_is_refused(answerer: Answerer) -> None:
    with pytest.raises(UserError, match=r"top-k 9: the model has 4 blocks, give 1 to 4"):
        answerer.gather(Evidence(dropout=DropoutSettings(SAMPLES, "top-k", 9)))
