"""What many tests need: a tiny real model, a small data set, and the installed commands."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import run_command, small_squad
from label_studio import Studio, studio

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data-set folder, built by `curate build` from a small SQuAD file."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "towns.json").write_text(json.dumps(small_squad()))
    (folder / "recipe.yaml").write_text(
        "name: towns\nsources:\n  - {kind: squad, path: towns.json}\n"
        "folds: {train: 0.4, validation: 0.2, calibration: 0.2, test: 0.2}\n"
    )
    done = run_command("curate", "build", folder / "recipe.yaml", "--out", folder / "set")
    assert done.returncode == 0, done.stderr
    return folder / "set"


@pytest.fixture(scope="session")
def small_set(data_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few contexts of it in each split, for what is trained many times."""
    from abstain.groups import draw_contexts
    from curate.record import read_fold, to_table, write_table

    folder = tmp_path_factory.mktemp("small")
    for fold, count in (("train", 40), ("validation", 8), ("test", 8)):
        contexts = draw_contexts(read_fold(data_set, fold), count, 1)
        rows = [row for context in contexts for row in context]
        write_table(to_table(rows), folder / f"{fold}.parquet")
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama of four layers and the embedded model's real tokenizer."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from abstain.model import embedded_folder

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        initializer_range=0.2,  # wide enough for the tokens' probabilities to differ
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def real_model() -> Any:
    """The embedded SmolLM2, loaded once; tests leave it as they find it."""
    from abstain.model import load_model

    return load_model("smollm2-135m")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A real OpenAI-compatible server on loopback: llama.cpp with the embedded model's weights."""
    from curate.generate.llm import local

    with local.serving(parallel=4, threads=1) as address:
        yield address


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """A real Label Studio on loopback, with its administrator logged in."""
    with studio(tmp_path_factory.mktemp("label-studio")) as running:
        yield running


@pytest.fixture(scope="session")
def tiny_run(data_set: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `train run` on the tiny model, calibrated by `abstain calibrate`."""
    run = tmp_path_factory.mktemp("run") / "run"
    done = run_command(
        "train", "run", "--data", data_set, "--out", run, "--model", tiny_model, "--epochs", 2
    )
    assert done.returncode == 0, done.stderr
    done = run_command("abstain", "calibrate", run, "--data", data_set, "--target-risk", 0.5)
    assert done.returncode == 0, done.stderr
    return run
