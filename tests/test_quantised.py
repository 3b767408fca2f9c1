"""Bases in 4 and 8 bits: trained on, stored so, served so, exported whole; and 8-bit moments."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from helpers import run_command

from abstain import quantised
from abstain.blocks import decoder
from abstain.model import load_model
from abstain.prefix import branch_out, forward
from abstain.run import weights_hash
from curate.errors import UserError
from train import export, optimizers, trainer
from train.estimate import Shape, estimate
from train.methods import METHODS, Name
from train.settings import TrainSettings, changed

KINDS: dict[quantised.Bits, type] = {4: Linear4bit, 8: Linear8bitLt}
TOKENS = [5, 6, 7, 8, 9, 10]


def settings(model: Path, **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "rank": 4, "epochs": 4, "learning_rate": 1e-2, **given}
    return TrainSettings(model=str(model), **values)


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    tree, _ = branch_out([TOKENS])
    return forward(model, tree, range(len(TOKENS))).logits


@pytest.mark.parametrize("bits", [4, 8])
def test_a_base_in_few_bits_is_nearly_the_base(tiny_model: Path, bits: quantised.Bits) -> None:
    few, whole = load_model(str(tiny_model), bits).model, load_model(str(tiny_model)).model
    layer = decoder(few).layers[0].mlp.up_proj
    assert isinstance(layer, KINDS[bits])
    one, other = logits(few), logits(whole)
    assert 0 < (one - other).abs().mean() < (0.35 if bits == 4 else 0.05) * other.std()


@pytest.mark.parametrize(
    ("method", "bits"),
    [("lora", 4), ("lora", 8), ("dora", 4), ("ia3", 4), ("ia3", 8), ("prefix", 8)],
)
def test_it_learns_and_is_served_on_what_it_was_trained_on(
    tiny_model: Path, small_set: Path, tmp_path: Path, method: Name, bits: quantised.Bits
) -> None:
    run = tmp_path / "run"
    trainer.run(small_set, run, settings(tiny_model, base_bits=bits, method=method))
    history = json.loads((run / "training.json").read_text())["progress"]["history"]
    assert history[-1]["answer"] < 0.98 * history[0]["answer"]
    loaded = load_model(str(run))
    assert any(isinstance(m, KINDS[bits]) for m in loaded.model.modules())
    trained = logits(loaded.model)
    assert (trained - logits(load_model(str(tiny_model), bits).model)).abs().max() > 1e-3
    # What the base's bits are is a part of what a guarantee covers.
    before = weights_hash(run)
    quantised.write(run, None)
    assert weights_hash(run) != before
    # On another base it is another model.
    assert (logits(load_model(str(run)).model) - trained).abs().max() > 1e-4


@pytest.mark.parametrize("bits", [4, 8])
def test_its_export_is_merged_into_the_rounded_weights(
    tiny_model: Path, small_set: Path, tmp_path: Path, bits: quantised.Bits
) -> None:
    """Merged into the base as it is stored, the adapter would correct what is not wrong there."""
    run = tmp_path / "run"
    trainer.run(small_set, run, settings(tiny_model, base_bits=bits))
    found = export.export(run, tmp_path / "merged", "merged", small_set, prompts=8)
    assert found.decided_otherwise == 0
    merged, served = logits(load_model(str(tmp_path / "merged")).model), load_model(str(run)).model
    quantised.write(run, None)
    wrong = logits(load_model(str(run)).model)
    exact = (merged - logits(served)).abs().mean()
    assert exact < (wrong - logits(served)).abs().mean()
    if bits == 4:  # computed in float32; LLM.int8() rounds what enters a layer too
        assert exact < 1e-3


def test_the_estimate_knows_of_fewer_bits(tiny_model: Path) -> None:
    shape = Shape(prefix=40, rows=3, question=8, answer=4).pack()
    chosen = settings(tiny_model, head_weight=0.0)
    whole = estimate(chosen, shape).memory
    for bits in KINDS:
        found = estimate(changed(chosen, {"base_bits": bits}), shape).memory
        model = load_model(str(tiny_model), bits).model
        # By what bitsandbytes holds; its scales for each row weigh more in a model this small.
        saved = load_model(str(tiny_model)).model.get_memory_footprint()
        saved -= model.get_memory_footprint()
        assert whole.weights - found.weights == pytest.approx(saved, rel=0.05)
    small = estimate(changed(chosen, {"optimizer": "adamw8bit"}), shape).memory
    assert small.optimizer < 0.3 * whole.optimizer


def test_moments_in_8_bits_step_nearly_as_adamw_does(tiny_model: Path) -> None:
    torch.manual_seed(0)
    start = torch.randn(128, 64)
    ends = []
    for name in ("adamw", "adamw8bit"):
        weight = torch.nn.Parameter(start.clone())
        optimizer = optimizers.make([weight], settings(tiny_model, optimizer=name))
        for _ in range(20):
            (weight - 1).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        ends.append(weight.detach() - start)
        held = [v for v in optimizer.state[weight].values() if torch.is_tensor(v) and v.dim() == 2]
    assert {v.dtype for v in held} == {torch.uint8}
    assert (ends[0] - ends[1]).norm() < 0.1 * ends[0].norm()


def test_moments_in_8_bits_resume_where_they_stopped(
    tiny_model: Path, small_set: Path, tmp_path: Path
) -> None:
    chosen = settings(tiny_model, optimizer="adamw8bit", rank=64, checkpoint_every=1)
    whole = trainer.run(small_set, tmp_path / "whole", chosen)

    class Stop(Exception):
        pass

    def stop(_: Any) -> None:
        raise Stop

    with pytest.raises(Stop):
        trainer.run(small_set, tmp_path / "run", chosen, watch=stop)
    again = trainer.run(small_set, tmp_path / "run", chosen)
    assert [s["total"] for s in again.history] == [s["total"] for s in whole.history]


def test_what_cannot_be_quantised_is_said(
    tiny_model: Path, small_set: Path, tmp_path: Path
) -> None:
    for method in METHODS:
        for bits in {4, 8} - set(METHODS[method].quantised):
            with pytest.raises(ValueError, match=f"base_bits {bits} goes with lora"):
                settings(tiny_model, method=method, base_bits=bits, learning_rate=3e-5)
    done = run_command(
        "train", "run", "--data", small_set, "--out", tmp_path / "run", "--base-bits", 3
    )
    assert done.returncode == 2 and "'3' is not one of" in done.stderr
    (tmp_path / "base.json").write_text('{"bits": 5}')
    with pytest.raises(UserError, match="bits are 4 or 8, not 5"):
        quantised.bits_of(tmp_path)
