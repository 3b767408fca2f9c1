"""The files that `train plan --launch` writes are understood by what is to read them.

Accelerate has no FSDP on the CPU: its own launcher reads the file, and the policy that comes of it
is held against a model. DeepSpeed trains with its file, in two processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import ENVIRONMENT, run_command

DEEPSPEED = Path(__file__).parents[1] / ".venv-deepspeed"

# A model's own step, and the same by DeepSpeed; what both end with is printed.
JOB = """
import json, sys
import torch
from transformers import AutoModelForCausalLM

model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
for name, parameter in model.named_parameters():
    parameter.requires_grad_("mlp" in name)
trained = [p for p in model.parameters() if p.requires_grad]
optimizer = torch.optim.SGD(trained, lr=0.3)  # Adam magnifies the last digit of small gradients
rows = torch.randint(0, 100, (4, 16), generator=torch.Generator().manual_seed(1)).expand(4, 4, 16)
losses = []
if len(sys.argv) == 2:
    for batch in rows:
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
else:
    import deepspeed
    deepspeed.init_distributed("gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    filled_in = {
        "train_micro_batch_size_per_gpu": 4 // count,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
    }
    config = {k: v for k, v in json.load(open(sys.argv[2])).items() if v != "auto"} | filled_in
    config["zero_allow_untested_optimizer"] = True
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    inside = model.model.layers[0].mlp.down_proj.weight
    assert inside.numel() == 0 and inside.ds_tensor.numel() * count == inside.ds_numel
    for batch in rows:
        mine = batch[rank::count]
        loss = engine(input_ids=mine, labels=mine).loss
        engine.backward(loss)
        engine.step()
        both = loss.detach().clone()
        torch.distributed.all_reduce(both)
        losses.append(both.item() / count)
if torch.distributed.is_initialized() is False or torch.distributed.get_rank() == 0:
    print("losses", json.dumps(losses))
"""


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    config = tmp_path / "config.yaml"
    config.write_text("bfloat16: 'off'\n")
    found = tmp_path / "launch"
    done = run_command("train", "plan", "--model", tiny_model, "--config", config, "--no-time",
                       "--gpus", 2, "--launch", found)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"accelerate launch --config_file {found / 'accelerate-zero3.yaml'}" in done.stdout
    return found


def test_accelerate_reads_fsdp_and_finds_the_blocks(
    folder: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils import FullyShardedDataParallelPlugin
    from accelerate.utils.launch import prepare_multi_gpu_env
    from transformers import AutoModelForCausalLM

    file = str(folder / "accelerate-fsdp.yaml")
    arguments = launch_command_parser().parse_args(["--config_file", file, "script.py"])
    arguments, _, _ = _validate_launch_command(arguments)
    assert arguments.use_fsdp and arguments.num_processes == 2
    for name, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(name, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward and plugin.auto_wrap_policy
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    plugin.set_auto_wrap_policy(model)
    policy: Any = plugin.auto_wrap_policy
    wrapped = [m for m in model.modules() if policy(m, recurse=False, nonwrapped_numel=0)]
    assert wrapped == list(model.model.layers)


def test_accelerate_finds_deepspeeds_own_file(folder: Path) -> None:
    from accelerate.commands.launch import _validate_launch_command as validated
    from accelerate.commands.launch import launch_command_parser

    file = str(folder / "accelerate-zero3.yaml")
    arguments, _, _ = validated(launch_command_parser().parse_args(["--config_file", file, "x.py"]))
    assert arguments.use_deepspeed and arguments.zero3_init_flag is True
    assert Path(arguments.deepspeed_config_file) == folder / "zero3.json"


@pytest.mark.skipif(not DEEPSPEED.exists(), reason="make deepspeed-env: DeepSpeed is not there")
def test_deepspeed_trains_with_it_as_one_process_without(folder: Path, tiny_model: Path) -> None:
    job = folder / "job.py"
    job.write_text(JOB)
    environment = {
        **ENVIRONMENT,
        "PYTHONPATH": os.pathsep.join([str(DEEPSPEED), os.environ.get("PYTHONPATH", "")]),
        "DS_ACCELERATOR": "cpu",
    }

    def losses(*command: object) -> list[float]:
        done = subprocess.run(
            [sys.executable, *map(str, command)],
            env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        line = next(line for line in done.stdout.splitlines() if line.startswith("losses "))
        found: list[float] = json.loads(line.removeprefix("losses "))
        return found

    alone = losses(job, tiny_model)
    run = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--standalone"]
    both = losses(*run, job, tiny_model, folder / "zero3.json")
    assert alone[3] < 0.99 * alone[0]
    assert both == pytest.approx(alone, rel=1e-4)


def test_offloaded_weights_go_where_they_were_told(tiny_model: Path, tmp_path: Path) -> None:
    for to, device in (("cpu", "cpu"), ("disk", "nvme")):
        done = run_command("train", "plan", "--model", tiny_model, "--no-time", "--offload", to,
                           "--launch", tmp_path / to, "--json")  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["launch"]) == 3
        zero = json.loads((tmp_path / to / "zero3.json").read_text())["zero_optimization"]
        assert zero["offload_param"]["device"] == device
        fsdp = yaml.safe_load((tmp_path / to / "accelerate-fsdp.yaml").read_text())
        assert fsdp["fsdp_config"]["fsdp_offload_params"] is True
