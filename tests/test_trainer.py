"""A run can be killed and resumed, learns, and leaves a folder that others can load."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command
from safetensors.torch import load_file

from curate.errors import UserError
from curate.files import sha256
from curate.record import read_fold, to_table, write_table
from train import trainer
from train.settings import TrainSettings


def options(data: Path, out: Path, model: Path, epochs: int = 2) -> list[str]:
    return ["--data", str(data), "--out", str(out), "--model", str(model), "--epochs", str(epochs)]


def test_a_run_learns_and_records_what_it_did(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(model=str(tiny_model), epochs=8, learning_rate=5e-3, patience=99)
    progress = trainer.run(data_set, tmp_path, settings)
    first, last = progress.history[0]["total"], progress.history[-1]["total"]
    assert last < 0.7 * first
    stored = json.loads((tmp_path / "training.json").read_text())
    assert stored["settings"]["learning_rate"] == 5e-3
    assert stored["progress"]["step"] == progress.step
    assert stored["progress"]["peak_memory"] > 0
    assert "validation loss" in (tmp_path / "README.md").read_text()


def test_the_run_is_a_folder_that_peft_loads(tiny_run: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    model = PeftModel.from_pretrained(base, tiny_run)
    with torch.no_grad():
        changed = model(torch.tensor([[5, 6, 7]])).logits
        with model.disable_adapter():
            plain = model(torch.tensor([[5, 6, 7]])).logits
    assert (changed - plain).abs().max() > 0
    assert json.loads((tiny_run / "adapter_config.json").read_text())[
        "base_model_name_or_path"
    ] == str(tiny_model)


def test_killed_training_resumes_to_the_very_same_weights(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("checkpoint_every: 1\nrows_per_step: 8\nevaluations: 2\n")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    more = ["--config", str(config)]
    done = run_command("train", "run", *options(data_set, whole, tiny_model), *more)
    assert done.returncode == 0, done.stderr

    command = [str(Path(sys.executable).parent / "train"), "run"]
    command += [*options(data_set, killed, tiny_model), *more]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    checkpoint = killed / "checkpoint" / "last.pt"
    for _ in range(6000):  # until some steps are done, a minute at most
        if checkpoint.exists() or process.poll() is not None:
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    assert not (killed / "training.json").exists(), "the run ended before it could be killed"
    resumed_from = torch.load(checkpoint, weights_only=True)["progress"]["step"]
    assert resumed_from >= 1

    done = run_command("train", "run", *options(data_set, killed, tiny_model), *more)
    assert done.returncode == 0, done.stderr
    for name in ("adapter_model.safetensors", "sufficiency_head.safetensors"):
        assert sha256(whole / name) == sha256(killed / name)
    histories = [
        json.loads((run / "training.json").read_text())["progress"]["history"]
        for run in (whole, killed)
    ]
    assert histories[0] == histories[1]


def test_a_finished_run_is_not_trained_again(
    data_set: Path, tiny_model: Path, tiny_run: Path
) -> None:
    before = sha256(tiny_run / "adapter_model.safetensors")
    done = run_command("train", "run", *options(data_set, tiny_run, tiny_model))
    assert done.returncode == 0
    assert "already trained" in done.stderr + done.stdout
    assert sha256(tiny_run / "adapter_model.safetensors") == before


def test_a_checkpoint_of_other_settings_is_refused(
    data_set: Path, tiny_model: Path, tiny_run: Path
) -> None:
    done = run_command("train", "run", *options(data_set, tiny_run, tiny_model, epochs=3))
    assert done.returncode == 1
    assert "other settings" in done.stderr and "--fresh" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_best_weights_are_kept_and_stopping_is_early(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(
        model=str(tiny_model), epochs=20, learning_rate=0.5, evaluations=20, patience=2
    )
    progress = trainer.run(data_set, tmp_path, settings)  # a rate that can only do harm
    assert len(progress.evaluations) < 20
    assert progress.stale() == 2
    best = torch.load(tmp_path / "checkpoint" / "best.pt", weights_only=True)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    name = next(name for name in saved if "lora_A" in name)
    kept = next(
        v for k, v in best.items() if k.startswith("0.") and k[2:].replace(".default", "") == name
    )
    assert torch.equal(saved[name], kept)


def test_rows_that_do_not_fit_are_refused_by_name(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    settings = TrainSettings(model=str(tiny_model), max_tokens=60)
    with pytest.raises(UserError, match=r"truncation at max_tokens = 60: \w{20} \("):
        trainer.run(data_set, tmp_path, settings)


def test_preflight_shows_the_prompt_and_counts(data_set: Path, tiny_model: Path) -> None:
    done = run_command("train", "preflight", "--data", data_set, "--model", tiny_model, "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["end_token_supervised"] is True
    assert found["emptied_by_truncation"] == 0
    assert found["saving"] > 1.5
    assert found["prompt"].endswith("<|im_start|>assistant\n")
    assert found["rows"] > found["sufficient"] > 0


def test_preflight_packs_nothing_that_training_would_not(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    sliding = {"model_type": "mistral", "architectures": ["MistralForCausalLM"],
               "sliding_window": 64}  # fmt: skip
    (model / "config.json").write_text(json.dumps({**config, **sliding}))
    done = run_command("train", "preflight", "--data", data_set, "--model", model)
    assert done.returncode == 0, done.stderr
    assert "takes one sequence only: rows share no prefix" in done.stdout
    assert "1.0× fewer" in done.stdout


def test_preflight_fails_where_truncation_would_empty_rows(
    data_set: Path, tiny_model: Path
) -> None:
    done = run_command(
        "train", "preflight", "--data", data_set, "--model", tiny_model, "--max-tokens", 40
    )
    assert done.returncode == 1
    assert "would lose their whole answer" in done.stdout


def test_preflight_fails_where_training_would_for_one_row_of_validation(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(data_set, tmp_path / "set")
    rows = read_fold(folder, "validation")
    rows[0].context = "The gate stands. " * 300
    write_table(to_table(rows), folder / "validation.parquet")
    done = run_command("train", "preflight", "--data", folder, "--model", tiny_model)
    assert done.returncode == 1
    assert rows[0].id in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "no/such-model"], "cannot load model 'no/such-model'"),
        (["--rank", "0"], "--rank"),
    ],
)
def test_bad_settings_are_named(
    data_set: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run_command("train", "run", "--data", data_set, "--out", tmp_path, *arguments)
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr


def test_an_unknown_setting_names_its_line_and_the_nearest(data_set: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("rank: 8\nlearning_rat: 0.1\n")
    done = run_command("train", "run", "--data", data_set, "--out", tmp_path, "--config", config)
    assert done.returncode == 1
    assert "line 2" in done.stderr and "did you mean 'learning_rate'" in done.stderr


def test_a_folder_that_cannot_be_written_is_named_before_training(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    done = run_command("train", "run", *options(data_set, tmp_path / "file" / "run", tiny_model))
    assert done.returncode == 1
    assert "cannot write to the folder" in done.stderr and "Traceback" not in done.stderr
    assert "loss" not in done.stderr


def test_a_full_disk_is_named_and_training_goes_on_once_there_is_room(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    def no_room() -> None:  # a file-size limit stands in for a disk that fills up
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    arguments = options(data_set, tmp_path / "run", tiny_model)
    done = run_command("train", "run", *arguments, preexec_fn=no_room)
    assert done.returncode == 1
    assert "cannot write" in done.stderr and "file-size limit" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_command("train", "run", *arguments)
    assert done.returncode == 0, done.stderr
