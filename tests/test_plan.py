"""`train plan`: what it says of a run is what the run then needs."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import run_command

from abstain.model import load_model
from curate.errors import UserError
from curate.record import read_fold
from train import plan as planning
from train import steps
from train.estimate import GIB, Shape, blocks_keep, empty, estimate
from train.meter import Meter, without_contents
from train.methods import METHODS, Name, wrap
from train.settings import TrainSettings

SHAPE = Shape(prefix=40, rows=3, question=8, answer=4)


def settings(model: Path, method: Name = "lora", **given: Any) -> TrainSettings:
    values = {"bfloat16": "off", "top_layers": 2, "rank": 4, **given}
    return TrainSettings(model=str(model), method=method, **values)  # type: ignore[arg-type]


def test_what_is_alive_is_counted_and_what_is_gone_is_not() -> None:
    meter = Meter([held := torch.zeros(10)])
    with meter:
        one = torch.ones(100)
        view = one[:50]  # the same storage
        two = one + 1
        assert meter.now == 4 * (10 + 100 + 100)
        del one
        assert meter.now == 4 * (10 + 100 + 100), "the view keeps the storage"
        del view
        assert meter.now == 4 * (10 + 100)
    assert meter.peak == 4 * 210
    assert float(held.sum() + two.sum()) == 200


def test_a_chain_of_layers_keeps_what_its_backward_pass_needs() -> None:
    """By hand: a linear layer keeps its input; tanh its output, which is the next one's input."""
    layers = [torch.nn.Linear(8, 8, bias=False) for _ in range(3)]
    meter = Meter([layer.weight for layer in layers])
    with meter:
        x = torch.ones(5, 8)
        for layer in layers:
            x = torch.tanh(layer(x))
    assert meter.now - 3 * 8 * 8 * 4 == 4 * 5 * 8 * (1 + 3)


@pytest.mark.parametrize("method", ["lora", "full", "prefix", "bottleneck"])
def test_fake_tensors_need_what_real_ones_do(tiny_model: Path, method: Name) -> None:
    chosen, pack = settings(tiny_model, method), SHAPE.pack()
    torch.manual_seed(0)
    real = wrap(load_model(str(tiny_model)).model, chosen, 100).model.train()
    fake, _ = empty(chosen.model_copy(update={"head_weight": 0.0}))
    peaks = []
    for model in (real, fake):
        context = without_contents(model) if model is fake else torch.enable_grad()
        with context:
            meter = Meter([*model.parameters(), *model.buffers()])
            with meter:
                steps.pack_losses(model, None, pack)[0].backward()
        peaks.append(meter.peak)
    assert peaks[1] == pytest.approx(peaks[0], rel=0.02)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "adapterfusion"])
def test_it_knows_how_much_each_method_trains(tiny_model: Path, method: Name) -> None:
    chosen = settings(tiny_model, method, head_weight=0.0)
    model = wrap(load_model(str(tiny_model)).model, chosen, 100).model
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    found = estimate(chosen, SHAPE.pack())
    assert found.trained == trained > 0
    assert found.memory.gradients == 4 * trained and found.memory.optimizer == 8 * trained


def test_more_tokens_and_keeping_more_need_more(tiny_model: Path) -> None:
    large_pack = Shape(prefix=400, rows=3).pack()
    large = estimate(settings(tiny_model), large_pack)
    less = estimate(settings(tiny_model, recompute_above=0), large_pack)
    assert less.memory.activations < large.memory.activations
    small, _ = blocks_keep(settings(tiny_model), SHAPE.pack())
    kept, recomputed = blocks_keep(settings(tiny_model), large_pack)
    assert small < kept / 3 and recomputed < kept / 2


def test_a_plan_reads_what_the_run_would(data_set: Path, tiny_model: Path, tmp_path: Path) -> None:
    plain = planning.plan(settings(tiny_model), data_set, timed=False).work
    rehearsed = planning.plan(settings(tiny_model, replay=0.5), data_set, timed=False).work
    assert plain is not None and rehearsed is not None
    rows = len(read_fold(data_set, "train"))
    assert plain.replies == 0 and rehearsed.replies == round(rows / 2) * 3
    assert plain.packs < rows * 3
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = json.loads((model / "config.json").read_text())
    sliding = {"model_type": "mistral", "architectures": ["MistralForCausalLM"],
               "sliding_window": 64}  # fmt: skip
    (model / "config.json").write_text(json.dumps({**config, **sliding}))
    alone = planning.plan(settings(model), data_set, timed=False).work
    assert alone is not None and alone.packs == rows * 3
    with pytest.raises(UserError, match="would lose their whole answer"):
        planning.plan(settings(tiny_model, max_tokens=20), data_set, timed=False)


def test_the_command_says_what_fits(data_set: Path, tiny_model: Path) -> None:
    done = run_command(
        "train", "plan", "--data", data_set, "--model", tiny_model, "--gpus", 2,
        "--gpu-memory", 0.1, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {way["name"] for way in found["strategies"]} == {
        "one GPU", "DDP on 2", "FSDP on 2", "one GPU, weights offloaded",
    }  # fmt: skip
    assert not any(way["fits"] for way in found["strategies"])
    ram = {way["name"]: way["host_memory"] for way in found["strategies"]}
    assert ram["DDP on 2"] == ram["FSDP on 2"] == 2 * ram["one GPU"]  # each process reads the base
    assert found["seconds"] > 0 and found["work"]["steps"] > 0
    assert found["estimate"]["total"] > 0.3 * GIB
    text = run_command("train", "plan", "--model", tiny_model, "--gpu-memory", 24)
    assert text.returncode == 0, text.stderr
    assert "yes" in text.stdout and "give --data" in text.stdout


def test_a_plan_takes_what_a_run_does_and_offers_what_it_can(tiny_model: Path) -> None:
    given = ["--model", tiny_model, "--no-time", "--gpus", 2, "--json"]
    found = {}
    for name, more in (
        ("full", ["--method", "full"]),
        ("8-bit moments", ["--method", "full", "--optimizer", "adamw8bit"]),
        ("4 bits", ["--base-bits", 4]),
        ("lora", []),
    ):
        done = run_command("train", "plan", *given, *more)
        assert done.returncode == 0, done.stderr
        found[name] = json.loads(done.stdout)
    ways = {name: {way["name"] for way in one["strategies"]} for name, one in found.items()}
    assert ways["full"] == ways["4 bits"] == {"one GPU", "DDP on 2"}
    assert "FSDP on 2" in ways["lora"]
    memory = {name: one["estimate"]["memory"] for name, one in found.items()}
    assert memory["8-bit moments"]["optimizer"] < 0.3 * memory["full"]["optimizer"]
    assert memory["4 bits"]["weights"] < memory["lora"]["weights"]
    text = run_command("train", "plan", *given[:-1], "--method", "full")
    assert "go with whole weights and lora" in text.stdout
