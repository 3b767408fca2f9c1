"""`train prune`: the right weights become zero, by either measure, and stay so."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command
from torch.nn.utils import prune as reference
from transformers import AutoModelForCausalLM

from abstain.blocks import decoder
from abstain.model import load_model
from curate.errors import UserError
from train import prune as pruning


def test_by_magnitude_as_pytorch_does_row_by_row(tiny_model: Path, tmp_path: Path) -> None:
    found = pruning.prune(str(tiny_model), tmp_path, "magnitude", 0.25)
    assert found.zeros == found.weights // 4
    before, after = load_model(str(tiny_model)).model, load_model(str(tmp_path)).model
    for one, other in zip(before.modules(), after.modules(), strict=True):
        if isinstance(one, torch.nn.Linear) and one is not before.lm_head:
            rows = []
            for row in one.weight.detach():
                layer = torch.nn.Linear(len(row), 1, bias=False)
                layer.weight.data = row[None].clone()
                rows.append(reference.l1_unstructured(layer, "weight", amount=0.25).weight[0])
            assert torch.equal(other.weight, torch.stack(rows))
    assert torch.equal(before.lm_head.weight, after.lm_head.weight)
    assert found.bits_a_byte[0] != found.bits_a_byte[1]


def test_wanda_scores_by_what_enters_below_pruned_blocks(
    tiny_model: Path, data_set: Path, tmp_path: Path
) -> None:
    """Against the obvious way: for each block, the whole model is run anew on every prompt."""
    pruning.prune(str(tiny_model), tmp_path, "wanda", 0.5, data_set)
    fast = load_model(str(tmp_path)).model
    loaded = load_model(str(tiny_model))
    prompts = pruning.prompts(loaded, data_set)
    assert len(prompts) > 5
    for block in decoder(loaded.model).layers:
        entered: dict[Any, list[torch.Tensor]] = defaultdict(list)

        def note(layer: Any, given: Any, entered: Any = entered) -> None:
            entered[layer].append(given[0][0])

        hooks = [layer.register_forward_pre_hook(note) for layer in pruning.linear(block)]
        with torch.no_grad():
            for prompt in prompts:
                loaded.model(torch.tensor([prompt]))
        for hook in hooks:
            hook.remove()
        for layer, inputs in entered.items():
            norm = torch.cat(inputs).norm(dim=0)
            score = layer.weight.detach().abs() * norm
            bound = score.median(dim=1, keepdim=True).values
            layer.weight.data[score <= bound] = 0
    slow = loaded.model
    for one, other in zip(fast.parameters(), slow.parameters(), strict=True):
        # Scores that are nearly equal may fall either way.
        assert float(((one == 0) != (other == 0)).float().mean()) < 1e-3


def test_a_pruned_model_is_fine_tuned_and_keeps_its_zeros(
    tiny_model: Path, data_set: Path, tmp_path: Path
) -> None:
    done = run_command(
        "train", "prune", tiny_model, "--out", tmp_path / "pruned", "--data", data_set, "--json"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sparsity"] == 0.5
    done = run_command(
        "train", "run", "--data", data_set, "--out", tmp_path / "run",
        "--model", tmp_path / "pruned", "--epochs", 1,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_model(str(tmp_path / "run")).base == str(tmp_path / "pruned")
    stored = AutoModelForCausalLM.from_pretrained(tmp_path / "pruned")
    layer = next(pruning.linear(decoder(stored).layers[0]))
    assert ((layer.weight == 0).sum(1) == layer.in_features // 2).all()


def test_what_cannot_be_pruned_is_said(tiny_model: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --data"):
        pruning.prune(str(tiny_model), tmp_path, "wanda", 0.5)
    with pytest.raises(UserError, match="prune its base"):
        pruning.prune(str(tiny_run), tmp_path, "magnitude", 0.5)
