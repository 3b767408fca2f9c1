"""Blocks of the base that lie on disk until they run: the same training, in less memory."""

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command

from abstain.blocks import decoder
from abstain.model import load_model
from curate.errors import UserError
from train import offload, trainer
from train.methods import wrap
from train.settings import TrainSettings, changed


def settings(model: Path, **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "rank": 4, "epochs": 2, "learning_rate": 1e-2, **given}
    return TrainSettings(model=str(model), **values)


def test_blocks_are_not_there_and_everything_else_is(tiny_model: Path) -> None:
    model = offload.load(str(tiny_model), "disk").model
    assert all(parameter.is_meta for parameter in decoder(model).layers.parameters())
    others = [p for name, p in model.named_parameters() if ".layers." not in name]
    assert others and not any(parameter.is_meta for parameter in others)
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        found = model(tokens).logits
        assert torch.equal(found, load_model(str(tiny_model)).model(tokens).logits)


def test_what_is_away_asks_for_no_gradients(tiny_model: Path) -> None:
    model = offload.load(str(tiny_model), "disk").model
    with offload.stand_ins(model):
        wrapped = wrap(model, settings(tiny_model), 1).model
    taught = [parameter for parameter in wrapped.parameters() if parameter.requires_grad]
    assert taught and not any(parameter.is_meta for parameter in taught)


@pytest.mark.parametrize("method", ["lora", "rslora", "ia3"])
def test_it_learns_what_it_would_learn_with_everything_in_memory(
    tiny_model: Path, small_set: Path, tmp_path: Path, method: Any
) -> None:
    base = settings(tiny_model, method=method)
    plain = trainer.run(small_set, tmp_path / "plain", changed(base, {"recompute_above": 0}))
    away = trainer.run(small_set, tmp_path / "away", changed(base, {"offload": "disk"}))
    assert [s["total"] for s in away.history] == [s["total"] for s in plain.history]
    assert away.history[-1]["total"] < away.history[0]["total"]
    # The run is a run like any other, and served from memory.
    assert not any(p.is_meta for p in load_model(str(tmp_path / "away")).model.parameters())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="it is a GPU's memory that is saved")
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_a_gpu_holds_less(small_set: Path, tmp_path: Path, where: Any) -> None:
    peak = {}
    for offloaded in (None, where):
        torch.cuda.reset_peak_memory_stats()
        chosen = TrainSettings(offload=offloaded, epochs=0.2, recompute_above=0)
        trainer.run(small_set, tmp_path / str(offloaded), chosen)
        peak[offloaded] = torch.cuda.max_memory_allocated()
    blocks = decoder(load_model("smollm2-135m").model).layers
    weights = sum(p.numel() * p.element_size() for p in blocks.parameters())
    assert peak[None] - peak[where] > weights / 2


def test_what_cannot_be_offloaded_is_said(
    tiny_model: Path, small_set: Path, tmp_path: Path
) -> None:
    for given in ({"method": "full"}, {"base_bits": 4}):
        with pytest.raises(ValueError, match="offload goes with lora, rslora, ia3"):
            settings(tiny_model, offload="disk", **given)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="in RAM as it is; there is --offload disk"):
            offload.load(str(tiny_model), "cpu")
    done = run_command(
        "train", "run", "--data", small_set, "--out", tmp_path / "run", "--model", tiny_model,
        "--offload", "disk", "--epochs", 0.1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
