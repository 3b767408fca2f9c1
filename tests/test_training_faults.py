"""What goes wrong in training is said with its cause and its remedy, and nothing is lost."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command

from abstain.model import load_model
from curate.errors import UserError
from train import out_of_memory, steps, trainer
from train.estimate import Shape
from train.settings import TrainSettings

# Cuts the one user message at its question, and tells that first.
QUESTION_FIRST = (
    "{% for m in messages %}{% set parts = m['content'].split('Question: ') %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{% if parts | length == 2 %}{{ parts[1] + '\\n' + parts[0] }}{% else %}{{ m['content'] }}"
    "{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def copy_of(model: Path, folder: Path) -> Path:
    return Path(shutil.copytree(model, folder / "model"))


def test_a_template_that_asks_first_shares_nothing_and_says_so(
    data_set: Path, tiny_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = copy_of(tiny_model, tmp_path)
    (model / "chat_template.jinja").write_text(QUESTION_FIRST)
    done = run_command("train", "preflight", "--data", data_set, "--model", model)
    assert done.returncode == 0, done.stderr
    assert "packing refused" in done.stdout and "1.0× fewer" in done.stdout
    settings = TrainSettings(model=str(model), epochs=0.2, evaluations=1)
    progress = trainer.run(data_set, tmp_path / "run", settings)
    assert "does not put the context before the question" in caplog.text
    assert progress.step > 0


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_checkpoint(
    data_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = TrainSettings(model=str(tiny_model), epochs=2, checkpoint_every=1, bfloat16="off")
    backward, calls = steps.backward, 0

    def broken(model: Any, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        found = backward(model, *arguments)
        if calls == 4:
            next(p for p in model.parameters() if p.requires_grad).grad.fill_(float("nan"))
        return found

    monkeypatch.setattr(steps, "backward", broken)
    with pytest.raises(UserError, match=r"step 4: loss .* norm nan.*diverged"):
        trainer.run(data_set, tmp_path, settings)
    last = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert last["progress"]["step"] == 3
    assert all(torch.isfinite(value).all() for value in last["weights"].values())


def test_weights_that_became_infinite_are_not_kept(
    data_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss and gradient of a step were finite; what it made of the weights is not."""
    settings = TrainSettings(model=str(tiny_model), epochs=2, checkpoint_every=1, bfloat16="off")
    step, calls = torch.optim.AdamW.step, 0

    def broken(self: Any, *arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        found = step(self, *arguments, **more)
        if calls == 3:
            self.param_groups[0]["params"][0].data.fill_(float("inf"))
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", broken)
    with pytest.raises(UserError, match=r"step 3: .* norm inf.*diverged"):
        trainer.run(data_set, tmp_path, settings)
    last = torch.load(tmp_path / "checkpoint" / "last.pt", weights_only=True)
    assert last["progress"]["step"] == 2


@pytest.mark.parametrize("head_weight", [0.0, 3.0])
def test_a_validation_that_is_no_number_is_said_and_keeps_no_weights(
    data_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    head_weight: float,
) -> None:  # fmt: skip
    settings = TrainSettings(
        model=str(tiny_model), epochs=1, bfloat16="off", head_weight=head_weight, checkpoint_every=1
    )
    score = steps.score_pack

    def no_number(model: Any, *arguments: Any) -> Any:
        found = score(model, *arguments)
        if model.training:
            return found
        return steps.Scored(found.answer * float("nan"), found.head * float("nan"),
                            [float("nan")] * len(found.logits), found.pack)  # fmt: skip

    monkeypatch.setattr(steps, "score_pack", no_number)
    with pytest.raises(UserError, match="validation loss nan: training has diverged"):
        trainer.run(data_set, tmp_path, settings)
    assert not (tmp_path / "checkpoint" / "best.pt").exists()
    assert (tmp_path / "checkpoint" / "last.pt").exists()


def test_a_rate_that_diverges_names_the_default(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = run_command(
        "train", "run", "--data", data_set, "--out", tmp_path / "run", "--model", tiny_model,
        "--method", "full", "--learning-rate", 1e30, "--epochs", 5,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "diverged" in done.stderr and "5e-05 is the default" in done.stderr


def test_too_little_memory_is_answered_with_what_would_need_less(
    data_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_much(*_: Any) -> Any:
        return torch.empty(2**50)  # the allocator's own error

    monkeypatch.setattr(steps, "backward", too_much)
    with pytest.raises(UserError, match="out of memory: a run with these settings"):
        trainer.run(data_set, tmp_path, TrainSettings(model=str(tiny_model)))


def test_a_model_that_is_too_large_to_read_is_answered_too(
    data_set: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer, "load_model", too_large)
    with pytest.raises(UserError, match="out of memory: a run with these settings"):
        trainer.run(data_set, tmp_path, TrainSettings(model=str(tiny_model)))


def test_a_run_is_no_base(data_set: Path, tiny_run: Path, tmp_path: Path) -> None:
    for command in ("run", "plan"):
        where = ["--out", tmp_path / "next"] if command == "run" else ["--no-time"]
        done = run_command("train", command, "--data", data_set, "--model", tiny_run, *where)
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert "is a run: train its base, or what `train export" in done.stderr


def test_a_model_of_another_kind_is_said(tmp_path: Path) -> None:
    from transformers import T5Config

    T5Config(d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    done = run_command("train", "plan", "--model", tmp_path, "--no-time")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "T5 is no causal language model" in done.stderr


def test_advice_names_settings_that_need_less_and_only_such() -> None:
    packs = [Shape(prefix=500, rows=12).examples()]
    text = out_of_memory.advice(TrainSettings(recompute_above=5000), packs)
    assert "recompute_above: 0" in text and "max_rows: 4" in text and "lean: true" in text
    assert "optimizer: adamw8bit" not in text  # LoRA's moments are small
    assert "optimizer: adamw8bit" in out_of_memory.advice(TrainSettings(method="full"), packs)
    least = TrainSettings(recompute_above=0, max_rows=1, lean=True, base_bits=4)
    assert "no setting" in out_of_memory.advice(least, [packs[0][:1]])


def test_a_model_without_tokenizer_is_named(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = copy_of(tiny_model, tmp_path)
    for path in model.glob("*token*"):
        path.unlink()
    done = run_command(
        "train", "run", "--data", data_set, "--out", tmp_path / "run", "--model", model
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "cannot load model" in done.stderr and str(model) in done.stderr


def test_an_adapter_of_another_base_is_refused(
    tiny_run: Path, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    other = tmp_path / "other"
    config = LlamaConfig(vocab_size=49152, hidden_size=48, intermediate_size=64,
                         num_hidden_layers=2, num_attention_heads=4)  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(other)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(other)
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    stored = json.loads((run / "adapter_config.json").read_text())
    stored["base_model_name_or_path"] = str(other)
    (run / "adapter_config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="its adapter does not fit the base model"):
        load_model(str(run))
    done = run_command("abstain", "ask", run, "--context", "-", "Why?", input="Because.")
    assert done.returncode == 1 and "Traceback" not in done.stderr
