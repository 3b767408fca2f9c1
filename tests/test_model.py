"""Loading models: the embedded one, and errors that say what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from abstain.head import SufficiencyHead, load_head, middle_layers
from abstain.model import load_model, load_tokenizer
from abstain.run import read_run_file
from curate.errors import UserError


def test_the_embedded_model_speaks_and_knows_its_end_token(real_model: Any) -> None:
    import torch

    assert real_model.tokenizer.decode([real_model.end_token_id]) == "<|im_end|>"
    prompt = real_model.tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}],
        add_generation_prompt=True,
        return_tensors="pt",
    )["input_ids"]
    said = real_model.model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=12, do_sample=False
    )
    assert "Paris" in real_model.tokenizer.decode(said[0, prompt.shape[1] :])


def test_a_tokenizer_loads_without_its_model(tiny_model: Path) -> None:
    tokenizer, end_token_id, window = load_tokenizer(str(tiny_model))
    assert window == 1024
    assert tokenizer.convert_ids_to_tokens(end_token_id) == "<|im_end|>"


def test_an_unknown_model_is_named_with_what_would_do() -> None:
    with pytest.raises(UserError, match=r"cannot load model 'nobody/nothing'.*\n.*smollm2-135m"):
        load_model("nobody/nothing")


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="damaged"):
        load_model(str(tmp_path))
    (tmp_path / "abstain.json").write_text(json.dumps({"contract": {}}))
    with pytest.raises(UserError, match="damaged"):
        read_run_file(tmp_path)


def test_an_adapter_leaves_no_dropout_on(tiny_run: Path) -> None:
    model = load_model(str(tiny_run)).model
    assert not any(module.training for module in model.modules())


def test_the_head_is_stored_and_comes_back_the_same(tmp_path: Path) -> None:
    import torch

    head = SufficiencyHead(middle_layers(30), 8)
    head.save(tmp_path)
    again = load_head(tmp_path)
    assert again is not None and again.layers == head.layers
    hidden = torch.randn(5, len(head.layers), 8)
    assert torch.equal(again(hidden), head(hidden))
    assert load_head(tmp_path / "elsewhere") is None


@pytest.mark.parametrize("layers", [2, 4, 12, 30, 80])
def test_the_heads_layers_lie_inside_the_model(layers: int) -> None:
    found = middle_layers(layers)
    assert found == tuple(sorted(set(found)))
    assert all(1 <= layer <= layers for layer in found)
