"""`train export`: what is exported says what the run says, or is not called done."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_command
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file, save_file

from abstain.answer import Answer
from abstain.answerer import load_answerer
from abstain.model import load_model
from abstain.predict import predict
from abstain.run import weights_hash
from curate.errors import UserError
from curate.record import Row, read_fold
from train import export as exporting
from train import trainer
from train.forgetting import forgetting
from train.settings import TrainSettings


def trained(model: str, data: Path, run: Path, **given: Any) -> Path:
    values = {"bfloat16": "off", "rank": 4, "epochs": 2, "learning_rate": 1e-2, **given}
    trainer.run(data, run, TrainSettings(model=model, **values))
    return run


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "ia3", "layernorm", "sparse"])
def test_a_merged_model_is_the_run(
    tiny_model: Path, small_set: Path, tmp_path: Path, method: Any
) -> None:
    run = trained(str(tiny_model), small_set, tmp_path / "run", method=method)
    found = exporting.export(run, tmp_path / "merged", "merged", small_set, prompts=8)
    assert found.rows == 8 and found.same_text == 1 and found.decided_otherwise == 0
    assert found.largest_gap is not None and found.largest_gap < 1e-4
    # It is a plain model: no adapter, no trace of PEFT, and loads without either.
    plain = load_model(str(tmp_path / "merged"))
    assert not (tmp_path / "merged/adapter_config.json").exists()
    assert not any(isinstance(module, BaseTunerLayer) for module in plain.model.modules())
    tokens = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        one, other = plain.model(tokens).logits, load_model(str(run)).model(tokens).logits
        base = load_model(str(tiny_model)).model(tokens).logits
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert (one - base).abs().max() > 1e-3
    assert json.loads((tmp_path / "merged/export.json").read_text())["same_text"] == 1


def test_a_merged_model_is_calibrated_and_asked_as_a_run_is(
    tiny_model: Path, data_set: Path, tmp_path: Path
) -> None:
    """With its own phrase and its head, and by a name for its weights that tells it from others."""
    run = trained(str(tiny_model), data_set, tmp_path / "run", abstention_phrase="no idea")
    merged = tmp_path / "merged"
    exporting.export(run, merged, "merged", data_set, prompts=8)
    answerer, before = load_answerer(str(merged)), load_answerer(str(run))
    assert answerer.contract == before.contract
    rows = read_fold(data_set, "validation")[:6]
    one, other = (predict(a, rows, "ask") for a in (answerer, before))
    assert answerer.head is not None
    np.testing.assert_allclose(one.raw.p_sufficient, other.raw.p_sufficient, atol=1e-4)
    name = weights_hash(merged)
    done = run_command("abstain", "calibrate", merged, "--data", data_set, "--target-risk", 0.5,
                       "--signals", "sufficiency_head")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert load_answerer(str(merged)).calibration is not None
    merged.rename(tmp_path / "moved")
    assert weights_hash(tmp_path / "moved") == name
    bf16 = tmp_path / "bfloat16"
    exporting.export(run, bf16, "bfloat16", data_set, prompts=8, tolerance=1.0)
    assert weights_hash(bf16) != name
    # So is one of which a single block differs, in the middle of the file.
    stored = load_file(tmp_path / "moved/model.safetensors")
    stored["model.layers.2.mlp.up_proj.weight"] += 0.01
    save_file(stored, tmp_path / "moved/model.safetensors", {"format": "pt"})
    assert weights_hash(tmp_path / "moved") != name
    for refuse, told in ((exporting.merged, "has no adapter_config"), (forgetting, "not a run of")):
        with pytest.raises(UserError, match=told):
            refuse(tmp_path / "moved")


def test_an_export_that_decides_otherwise_is_not_called_done(
    tiny_model: Path,
    tiny_run: Path,
    small_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    phrase = exporting.read_run_file(tiny_run).contract.abstention_phrase

    def always(answerer: Any, rows: list[Row], label: str) -> list[Answer]:
        declines = label == "ask the export"
        return [Answer(phrase if declines else "red", declines, (-0.5,)) for _ in rows]

    monkeypatch.setattr(exporting, "answer_all", always)
    with pytest.raises(UserError, match=r"on 100.0% of 8 prompts, .* decides otherwise"):
        exporting.export(tiny_run, tmp_path / "merged", "merged", small_set, prompts=8)
    assert not (tmp_path / "merged").exists()
    assert json.loads((tmp_path / "merged.unchecked/export.json").read_text())["same_text"] == 0


def test_what_both_say_is_compared_row_by_row() -> None:
    rows = [
        Row(f"question {n}", "context", answers=[gold] if gold else [], sufficient=bool(gold),
            id=str(n))
        for n, gold in enumerate(("red", "", "blue", ""))
    ]  # fmt: skip
    run = [Answer("red", False, (-0.1, -0.3)), Answer("no", True, (-1.0,)),
           Answer("blue", False, (-0.5,)), Answer("no", True, (-0.2,))]  # fmt: skip
    export = [Answer("red", False, (-0.2, -0.3)), Answer("five", False, (-1.0,)),
              Answer("green", False, (-0.5,)), Answer("no", True, (-0.5,))]  # fmt: skip
    found = exporting.compare("merged", rows, run, export)
    assert found.same_text == 0.5 and found.decided_otherwise == 0.25
    assert found.declined == (0.5, 0.25)
    assert found.f1 == (1.0, 0.5)  # one answer became wrong, and one that was to be declined
    assert found.mean_gap == pytest.approx((0.05 + 0.3) / 2)
    assert found.largest_gap == pytest.approx(0.3)
    assert [(d.row, d.run, d.export) for d in found.differences] == [
        ("1", "no", "five"), ("2", "blue", "green"),
    ]  # fmt: skip
    assert "'question 1': 'no' became 'five'" in found.text()


def test_answers_that_became_rubbish_are_noticed_where_as_many_are_declined() -> None:
    rows = [Row("question", "context", answers=["red"], sufficient=True, id=str(n)) for n in "ab"]
    right, wrong = Answer("red", False, (-0.1,)), Answer("the the", False, (-0.1,))
    found = exporting.compare("merged", rows, [right, right], [right, wrong])
    assert found.decided_otherwise == 0
    assert "answers worse" in exporting._differs(found, 0.03)
    assert exporting._differs(found, 0.5) == ""
    unlike = exporting.compare("merged", rows, [right, right], [wrong, wrong])
    assert unlike.mean_gap is None and "unknown" in unlike.text()


def test_an_adapter_is_compared_as_peft_alone_loads_it(
    tiny_model: Path, small_set: Path, tmp_path: Path
) -> None:
    run = trained(str(tiny_model), small_set, tmp_path / "run")
    found = exporting.export(run, tmp_path / "adapter", "adapter", small_set, prompts=8)
    assert found.same_text == 1 and found.largest_gap is not None and found.largest_gap < 1e-4
    assert sorted(path.name for path in (tmp_path / "adapter").glob("adapter*")) == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    # Trained on a rounded base, whose rounding it corrects: on the plain one it says other things.
    rounded = trained(str(tiny_model), small_set, tmp_path / "rounded", base_bits=4, epochs=4)
    beside = exporting.export(
        rounded, tmp_path / "other", "adapter", small_set, prompts=8, tolerance=1.0
    )
    assert beside.same_text < 1 or (beside.largest_gap or 1.0) > 1e-3
    ours = trained(str(tiny_model), small_set, tmp_path / "ours", method="bottleneck", epochs=0.5)
    with pytest.raises(UserError, match="no adapter of PEFT"):
        exporting.export(ours, tmp_path / "ours-adapter", "adapter", small_set)


def test_gguf_answers_in_llama_cpp_as_the_run_does(small_set: Path, tmp_path: Path) -> None:
    """The embedded model itself: its real tokenizer and chat template go through the converter."""
    run = trained("smollm2-135m", small_set, tmp_path / "run", epochs=0.2, learning_rate=1e-3)
    done = run_command(
        "train", "export", run, "--data", small_set, "--out", tmp_path / "model.gguf",
        "--as", "gguf-f32", "--prompts", 8, "--tolerance", 0.13, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["same_text"] >= 0.75 and found["mean_gap"] < 0.05
    assert (tmp_path / "model.gguf").stat().st_size > 4e8
    assert json.loads((tmp_path / "model.gguf.export.json").read_text()) == found


def test_what_cannot_be_exported_is_said(
    tiny_model: Path, tiny_run: Path, small_set: Path, tmp_path: Path
) -> None:
    run = trained(str(tiny_model), small_set, tmp_path / "run", method="bottleneck", epochs=0.5)
    with pytest.raises(UserError, match="bottleneck adapter cannot be merged"):
        exporting.export(run, tmp_path / "merged", "merged", small_set)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="is there already"):
        exporting.export(tiny_run, tmp_path / "there", "merged", small_set)
