"""`train plan --launch DIR`: how other trainers would spread the same model over several GPUs.

`train run --shard` needs none of this. TRL's and Transformers' trainers are started by Accelerate,
which reads one of these files: frozen and trained weights, gradients and the optimiser's state are
split by PyTorch's FSDP2, or by DeepSpeed's ZeRO stage 3 (Rajbhandari et al. 2020).
"""

import json
from pathlib import Path
from typing import Any

import yaml

from abstain.blocks import decoder
from abstain.model import model_config
from curate.files import writable_folder, write_text
from train.estimate import empty
from train.settings import TrainSettings

FSDP, ZERO, DEEPSPEED = "accelerate-fsdp.yaml", "accelerate-zero3.yaml", "zero3.json"
# Filled in by Accelerate from the trainer's own arguments, which would contradict other numbers.
_TRAINERS_OWN = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_accumulation_steps",
    "gradient_clipping",
)


def write(folder: Path, settings: TrainSettings, gpus: int) -> list[str]:
    """Write the three files for so many GPUs of one machine, and give the commands that use them.

    With `offload`, weights lie in RAM (``cpu``) or, of DeepSpeed's only, in ``folder`` (``disk``).
    """
    writable_folder(folder)
    for name, content in (
        (FSDP, {**_machine(gpus), **fsdp(settings)}),
        (ZERO, {**_machine(gpus), **_deepspeed(folder / DEEPSPEED)}),
    ):
        write_text(folder / name, yaml.safe_dump(content, sort_keys=False))
    write_text(folder / DEEPSPEED, json.dumps(zero(settings, folder), indent=2) + "\n")
    shard = " --shard" if settings.leaves else ""
    ours = f"torchrun --nproc-per-node {gpus} $(which train) run{shard}"
    return [
        f"{ours} …  (this toolkit's own)",
        *(
            f"accelerate launch --config_file {folder / name} SCRIPT …  (TRL, Transformers)"
            for name in (FSDP, ZERO)
        ),
    ]


def fsdp(settings: TrainSettings) -> dict[str, Any]:
    """Accelerate's settings of FSDP2, which gathers a block at a time and is told their class."""
    block = decoder(empty(settings)[0]).layers[0]
    return {
        "distributed_type": "FSDP",
        "mixed_precision": "no" if settings.bfloat16 == "off" else "bf16",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_transformer_layer_cls_to_wrap": type(block).__name__,
            "fsdp_reshard_after_forward": True,
            "fsdp_offload_params": settings.offload is not None,
            "fsdp_activation_checkpointing": settings.keep < settings.max_tokens,
            "fsdp_cpu_ram_efficient_loading": True,  # one process reads weights, and sends them
            "fsdp_state_dict_type": "FULL_STATE_DICT",
        },
    }


def zero(settings: TrainSettings, folder: Path) -> dict[str, Any]:
    """DeepSpeed's configuration of ZeRO stage 3.

    Buckets are as large as a matrix of the model, as Transformers' "auto" would have them: what is
    gathered ahead and sent at once (https://huggingface.co/docs/transformers/deepspeed).
    """
    hidden = model_config(settings.model).get_text_config().hidden_size
    where: dict[str, Any] = {"device": "none"}
    if settings.offload == "cpu":
        where = {"device": "cpu", "pin_memory": True}
    elif settings.offload == "disk":
        where = {"device": "nvme", "nvme_path": str(folder.resolve())}
    return {
        **dict.fromkeys(_TRAINERS_OWN, "auto"),
        "bf16": {"enabled": settings.bfloat16 != "off"},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": True,
            "contiguous_gradients": True,
            "reduce_bucket_size": hidden * hidden,
            "stage3_prefetch_bucket_size": 9 * hidden * hidden // 10,
            "stage3_param_persistence_threshold": 10 * hidden,  # gains and biases stay whole
            "stage3_gather_16bit_weights_on_model_save": True,
            "offload_param": where,
        },
    }


def _machine(gpus: int) -> dict[str, Any]:
    """What Accelerate asks of every configuration, of one machine."""
    return {
        "compute_environment": "LOCAL_MACHINE",
        "machine_rank": 0,
        "main_training_function": "main",
        "num_machines": 1,
        "num_processes": gpus,
        "use_cpu": False,
    }


def _deepspeed(config: Path) -> dict[str, Any]:
    """That DeepSpeed's own file says the rest; weights are split as they are read."""
    return {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "deepspeed_config_file": str(config.resolve()),
            "zero3_init_flag": True,
        },
    }
