"""Packed training computes the loss and the gradients of row-by-row training."""

import contextlib
import functools
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from abstain.head import SufficiencyHead, middle_layers
from abstain.model import LoadedModel, load_model
from curate.contract import Contract
from curate.record import Row
from train import steps
from train.collate import Example, make_example, make_pack, pack_examples
from train.methods import lora, wrap
from train.precision import round_frozen_weights
from train.settings import TrainSettings

CONTEXTS = (
    "The gate of Arden is painted red. It was built in 1432 by the masons of Corby.",
    "The pass costs £6 and runs for 24 hours, counted from the first ride.",
)
ROWS = [
    Row("What colour is the gate?", CONTEXTS[0], answers=["red"], sufficient=True),
    Row("When was it built?", CONTEXTS[0], answers=["in 1432"], sufficient=True),
    Row("Who painted it?", CONTEXTS[0], sufficient=False),
    Row("How much is it?", CONTEXTS[1], answers=["£6"], sufficient=True),
    Row("Who sells it?", CONTEXTS[1], sufficient=False),
]


def prepare(loaded: LoadedModel, **given: Any) -> tuple[Any, SufficiencyHead, list[Example]]:
    """A LoRA model with weights that are not zero, a head, and the rows as examples."""
    torch.manual_seed(1)
    model = lora.wrap(loaded.model, TrainSettings(rank=4, **given)).model
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    config = model.config
    head = SufficiencyHead(middle_layers(config.num_hidden_layers), config.hidden_size)
    examples = [make_example(r, loaded.tokenizer, Contract(), loaded.end_token_id) for r in ROWS]
    return model, head, examples


def gradients(*modules: Any) -> dict[str, torch.Tensor]:
    found = {}
    for number, module in enumerate(modules):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                found[f"{number}.{name}"] = parameter.grad.clone()
                parameter.grad = None
    return found


def reference(model: Any, head: SufficiencyHead, examples: Sequence[Example]) -> torch.Tensor:
    """The same loss by the plain road: one row a pass, `transformers`' own masking by label."""
    tokens = sum(len(example.answer) for example in examples)
    total = torch.zeros(())
    for example in examples:
        labels = [-100] * len(example.prompt) + list(example.answer)
        output = model(
            torch.tensor([[*example.prompt, *example.answer]]),
            labels=torch.tensor([labels]),
            output_hidden_states=True,
        )
        total = total + output.loss * len(example.answer) / tokens
        place = len(example.prompt) - 1
        states = torch.stack([output.hidden_states[k][0, place] for k in head.layers])
        label = torch.tensor(float(example.sufficient))
        logit = head(states[None])[0]
        total = total + torch.nn.functional.binary_cross_entropy_with_logits(logit, label) / len(
            examples
        )
    return total


def compare(loaded: LoadedModel) -> None:
    model, head, examples = prepare(loaded, dropout=0.0)
    model.train()
    expected = reference(model, head, examples)
    expected.backward()
    alone = gradients(model, head)
    batch = pack_examples(examples, 12, 1024)
    assert [len(pack) for pack in batch] == [3, 2]
    losses = steps.backward(model, head, batch, 1.0, contextlib.nullcontext, 10_000)
    packed = gradients(model, head)
    assert losses.means(1.0)["total"] == pytest.approx(float(expected), rel=1e-4)
    largest = max(float(g.abs().max()) for g in alone.values())
    for name, gradient in alone.items():
        difference = (packed[name] - gradient).norm()
        assert difference <= 1e-3 * gradient.norm() + 1e-6 * largest, name


def test_loss_and_gradients_equal_row_by_row_on_a_tiny_model(tiny_model: Path) -> None:
    compare(load_model(str(tiny_model)))


def test_loss_and_gradients_equal_row_by_row_on_the_real_model() -> None:
    compare(load_model("smollm2-135m"))


def test_recomputing_activations_changes_no_gradient(tiny_model: Path) -> None:
    model, head, examples = prepare(load_model(str(tiny_model)), dropout=0.1)
    model.train()
    found = []
    for threshold in (10_000, 0, 100):
        torch.manual_seed(3)  # the same dropout masks
        batch = pack_examples(examples, 12, 1024)
        steps.backward(model, head, batch, 1.0, contextlib.nullcontext, threshold)
        found.append(gradients(model, head))
    for name in found[0]:
        torch.testing.assert_close(found[1][name], found[0][name], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found[2][name], found[0][name], rtol=1e-4, atol=1e-7)


def test_only_as_many_blocks_recompute_as_the_bound_asks_for(tiny_model: Path) -> None:
    model, _, _ = prepare(load_model(str(tiny_model)))
    layers = model.get_base_model().model.layers
    for tokens, keep, recomputed in ((100, 100, 0), (120, 100, 1), (200, 100, 2), (100, 0, 4)):
        steps.recompute_activations(model, tokens, keep)
        assert [layer.gradient_checkpointing for layer in layers] == [True] * recomputed + [
            False
        ] * (4 - recomputed)


def test_no_gradient_goes_below_what_is_trained(tiny_model: Path) -> None:
    """Computing blocks twice must not have frozen ones take part in the backward pass."""
    settings = TrainSettings(model=str(tiny_model), method="selective", top_layers=1)
    model = wrap(load_model(str(tiny_model)).model, settings, 1).model.train()
    steps.recompute_activations(model, 8, 0)
    seen = []
    for layer in model.get_base_model().model.layers:
        layer.register_forward_hook(lambda *given: seen.append(given[-1].requires_grad))
    model(torch.tensor([[5, 6, 7, 8]]))
    assert seen == [False, False, False, True]


def test_the_loss_is_taught_on_answers_and_end_tokens_only(tiny_model: Path) -> None:
    loaded = load_model(str(tiny_model))
    _, _, examples = prepare(loaded)
    pack = make_pack(examples[:3])
    taught = loaded.tokenizer.decode(pack.targets)
    assert taught == "red<|im_end|>in 1432<|im_end|>unanswerable<|im_end|>"
    before = [pack.tree.tokens[i] for i in pack.answer_at]
    assert len(before) == len(pack.targets)
    # What stands at a taught place is the token that the target follows.
    assert loaded.tokenizer.decode(before[:1]) == loaded.tokenizer.decode(before[2:3]) == "\n"


def test_an_epoch_reads_every_row_once_in_an_order_of_its_own() -> None:
    packs = [
        [Example(f"{p}-{i}", f"c{p}", (1, 2), (3,), True) for i in range(p % 5 + 1)]
        for p in range(20)
    ]
    orders = []
    for epoch in range(3):
        batches = steps.batches(packs, 6, 13, epoch)
        names = [e.row_id for batch in batches for pack in batch for e in pack]
        assert sorted(names) == sorted(e.row_id for pack in packs for e in pack)
        assert all(sum(map(len, batch)) <= 6 or len(batch) == 1 for batch in batches)
        orders.append(names)
    assert orders[0] != orders[1] != orders[2]
    again = steps.batches(packs, 6, 13, 1)
    assert [e.row_id for batch in again for pack in batch for e in pack] == orders[1]


def test_a_plan_reads_every_row_once_an_epoch_however_its_steps_fill() -> None:
    packs = [
        [Example(f"{p}-{i}", f"c{p}", (1, 2), (3,), True) for i in range(p % 5 + 1)]
        for p in range(23)
    ]
    sizes = {len(steps.batches(packs, 6, 13, epoch)) for epoch in range(8)}
    assert len(sizes) > 1, "the epochs of this example must differ in their number of steps"
    whole = steps.plan(packs, 6, 13, 8)
    seen = Counter(e.row_id for batch in whole for pack in batch for e in pack)
    assert set(seen.values()) == {8} and len(seen) == sum(map(len, packs))
    half = steps.plan(packs, 6, 13, 1.5)
    first = len(steps.batches(packs, 6, 13, 0))
    assert half == whole[: len(half)]
    assert len(half) - first == math.ceil(len(steps.batches(packs, 6, 13, 1)) / 2)


def test_rounding_frozen_weights_changes_nothing_under_autocast(tiny_model: Path) -> None:
    model, head, examples = prepare(load_model(str(tiny_model)), dropout=0.1)
    batch = pack_examples(examples, 12, 1024)
    autocast = functools.partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    found = []
    for _ in range(2):
        torch.manual_seed(3)  # the same dropout masks
        steps.backward(model, head, batch, 1.0, autocast, 512)
        found.append(gradients(model, head))
        round_frozen_weights(model, torch.bfloat16)
    for name in found[0]:
        assert torch.equal(found[1][name], found[0][name])
    kinds = {name: parameter.dtype for name, parameter in model.named_parameters()}
    for name, kind in kinds.items():
        rounded = name.endswith(("base_layer.weight", "lm_head.weight"))  # not tied in this model
        assert kind == (torch.bfloat16 if rounded else torch.float32), name


def test_a_head_too_sure_of_itself_does_not_worsen_the_validation_total(tiny_model: Path) -> None:
    model, head, examples = prepare(load_model(str(tiny_model)))
    packs = pack_examples(examples, 12, 1024)

    def evaluated() -> dict[str, float]:
        return steps.evaluate(model, head, packs, 3.0, contextlib.nullcontext)

    before = evaluated()
    with torch.no_grad():
        head.weight.mul_(100)
    surer = evaluated()
    assert surer["head"] > before["head"] + 0.5
    assert surer["head_auroc"] == before["head_auroc"]
    assert surer["head_calibrated"] == pytest.approx(before["head_calibrated"], abs=1e-3)
    assert surer["total"] == pytest.approx(surer["answer"] + 3 * surer["head_calibrated"])
