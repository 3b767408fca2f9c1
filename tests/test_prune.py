"""`train prune`: the right weights become zero, by either measure, and stay so."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command
from torch.nn.utils import prune as reference
from transformers import AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from abstain.blocks import decoder
from abstain.model import LoadedModel, load_model
from curate.errors import UserError
from curate.record import read_fold
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
    run = load_model(str(tmp_path / "run"))
    assert run.base == str(tmp_path / "pruned")
    # Beneath the adapter of the trained run, as they were.
    layer = decoder(run.model.get_base_model()).layers[0].mlp.up_proj
    assert layer.lora_B["default"].weight.any()
    assert ((layer.base_layer.weight == 0).sum(1) == layer.in_features // 2).all()


def test_layers_that_attend_to_a_window_are_given_their_own_masks(
    data_set: Path, tiny_model: Path
) -> None:
    """Gemma 3 mixes both kinds of blocks; run whole, or block by block, it gives the same."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, sliding_window=8,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )  # fmt: skip
    torch.manual_seed(0)
    model = Gemma3ForCausalLM(config).eval()
    (prompt,) = pruning.prompts(LoadedModel(model, tokenizer, "gemma"), data_set)[:1]
    with torch.no_grad():
        (hidden,), more = pruning._entering(LoadedModel(model, tokenizer, "gemma"), [prompt])
        for block, (given,) in zip(decoder(model).layers, more, strict=True):
            hidden = pruning._first(block(hidden, **given))
        whole = model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[-1]
        torch.testing.assert_close(decoder(model).norm(hidden), whole)


def test_wanda_reads_one_prompt_of_each_context(tiny_model: Path, data_set: Path) -> None:
    loaded = load_model(str(tiny_model))
    contexts = {row.context for row in read_fold(data_set, "train")}
    assert len(pruning.prompts(loaded, data_set)) == min(pruning.PROMPTS, len(contexts))


def test_what_cannot_be_pruned_is_said(tiny_model: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give --data"):
        pruning.prune(str(tiny_model), tmp_path, "wanda", 0.5)
    with pytest.raises(UserError, match="is the model itself"):
        pruning.prune(str(tiny_model), tiny_model, "magnitude", 0.5)
    with pytest.raises(UserError, match="prune its base"):
        pruning.prune(str(tiny_run), tmp_path, "magnitude", 0.5)
