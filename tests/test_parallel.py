"""Training in two processes is training in one."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from helpers import ENVIRONMENT, run_command
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from train.collate import Example, make_pack
from train.parallel import share
from train.settings import TrainSettings
from train.shard import even

CONFIG = "rows_per_step: 16\nmax_rows: 4\ndropout: 0.0\nbfloat16: 'off'\nevaluations: 2\n"


def example(prompt: int, question: int, answer: int) -> Example:
    return Example("r", "c", (*[0] * prompt, *[question] * 3), (1,) * answer, True)


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5), st.integers(1, 6)), max_size=12),
    st.integers(1, 4),
)
def test_every_pack_falls_to_one_process_and_none_has_much_more(
    sizes: list[tuple[int, int, int]], count: int
) -> None:
    batch = [[example(p, q + 1, a) for q in range(n)] for p, n, a in sizes]
    shares = [share(batch, number, count) for number in range(count)]
    assert sorted(map(id, batch)) == sorted(id(pack) for part in shares for pack in part)
    loads = [sum(len(make_pack(pack).tree) for pack in part) for part in shares]
    largest = max((len(make_pack(pack).tree) for pack in batch), default=0)
    assert max(loads) - min(loads) <= 1.5 * largest + 8


def torchrun_command(processes: int, *arguments: object) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)]
    command += ["--master-addr", "127.0.0.1", "--master-port", "0", "--standalone"]
    return [*command, "-m", "train.cli", *map(str, arguments)]


def torchrun(processes: int, *arguments: object) -> None:
    done = subprocess.run(
        torchrun_command(processes, *arguments),
        env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("more", [[], ["--shard"], ["--method", "adalora"]])
def test_two_processes_end_where_one_does(
    data_set: Path, tiny_model: Path, tmp_path: Path, more: list[str]
) -> None:
    """Each with the whole base, or half of its frozen weights; a penalty counts once."""
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG)
    arguments: list[Any] = ["--data", data_set, "--model", tiny_model, "--config", config,
                            "--epochs", 2, "--replay", 0.1]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    alone = [] if "--shard" in more else more
    done = run_command("train", "run", *arguments, "--out", one, *alone)
    assert done.returncode == 0, done.stderr
    torchrun(2, "run", *arguments, "--out", two, *more)
    stories = [json.loads((run / "training.json").read_text()) for run in (one, two)]
    # The gradients' norm is before clipping: Adam forgives a wrong factor, it does not.
    assert "gradient_norm" in stories[0]["progress"]["history"][0]
    for name in ("history", "evaluations"):
        for a, b in zip(*(story["progress"][name] for story in stories), strict=True):
            assert a == pytest.approx(b, rel=2e-3, abs=1e-4)
    assert stories[0]["progress"]["tokens"] == stories[1]["progress"]["tokens"]
    assert stories[1]["settings"]["shard"] == ("--shard" in more)
    tensors = [load_file(run / "adapter_model.safetensors") for run in (one, two)]
    for name, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][name], atol=2e-3), name


@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), min_size=1, max_size=9),
    st.integers(1, 4),
)
def test_sharded_everybody_has_as_many_packs_and_nothing_counts_twice(
    sizes: list[tuple[int, int]], count: int
) -> None:
    batch = [[example(p, q + 1, 2) for q in range(n)] for p, n in sizes]
    shares = [even(batch, number, count) for number in range(count)]
    assert len({len(part) for part in shares}) == 1
    real = [pack for part in shares for pack in part if any(e.weight for e in pack)]
    assert sorted(map(id, batch)) == sorted(map(id, real))


SHARDED = """
import torch, torch.distributed as dist
from abstain.model import load_model
from train import parallel, shard
from train.methods import wrap
from train.settings import TrainSettings
import sys
parallel.start()
settings = TrainSettings(model=sys.argv[1], rank=4)
model = wrap(load_model(settings.model).model, settings, 1).model
whole = sum(p.numel() for p in model.parameters())
shard.shard(model)
with torch.no_grad():  # what was gathered for it is given back
    model(torch.tensor([[5, 6, 7]]))
held = sum(getattr(p, "to_local", lambda p=p: p)().numel() for p in model.parameters())
if parallel.rank() == 0:
    print("held", held, "of", whole, "frozen", sum(
        p.numel() for n, p in model.named_parameters() if "layers" in n and p.dim() > 1
        and not p.requires_grad))
parallel.stop()
"""


def test_each_process_holds_half_of_what_is_frozen(tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "sharded.py"
    script.write_text(SHARDED)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(script), str(tiny_model)]
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    _, held, _, whole, _, frozen = done.stdout.split()
    assert int(whole) - int(held) == int(frozen) // 2


def test_a_process_alone_holds_everything(
    small_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    done = run_command("train", "run", "--data", small_set, "--model", tiny_model, "--epochs", 0.2,
                       "--out", tmp_path / "run", "--shard")  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_sharded_is_said() -> None:
    for given_, told in (
        ({"method": "full"}, "shard goes with lora"),
        ({"base_bits": 4}, "whole weights"),
        ({"kl": 1.0, "replay": 0.2}, "kl reads some packs twice"),
        ({"offload": "disk"}, "one or the other"),
    ):
        with pytest.raises(ValueError, match=told):
            TrainSettings.model_validate({"shard": True, **given_})


def test_two_killed_processes_go_on_as_two_and_not_as_one(
    data_set: Path, tiny_model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("dropout: 0.0", "dropout: 0.2") + "checkpoint_every: 1\n")
    arguments: list[Any] = ["--data", data_set, "--model", tiny_model, "--config", config,
                            "--epochs", 6]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    torchrun(2, "run", *arguments, "--out", whole)
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            torchrun_command(2, "run", *arguments, "--out", killed),
            stdout=log, stderr=log, env=ENVIRONMENT,
        )  # fmt: skip
    end = time.monotonic() + 200
    while not (killed / "checkpoint/last.pt").exists():
        assert process.poll() is None and time.monotonic() < end, (tmp_path / "log").read_text()
        time.sleep(0.02)
    agent = psutil.Process(process.pid)
    for one in [agent, *agent.children(recursive=True)]:
        one.kill()
    process.wait()
    assert not (killed / "training.json").exists(), "it ended before it could be killed"
    alone = run_command("train", "run", *arguments, "--out", killed)
    assert alone.returncode == 1 and "is of 2 processes, not of 1" in alone.stderr
    torchrun(2, "run", *arguments, "--out", killed)
    histories = [
        json.loads((run / "training.json").read_text())["progress"]["history"]
        for run in (whole, killed)
    ]
    assert histories[0] == histories[1]
