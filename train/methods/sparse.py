"""Sparse tuning: single weights of the linear layers, at places drawn once."""

from typing import Any

import torch

from abstain.blocks import decoder
from curate.errors import UserError
from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """As many single weights of each linear layer as LoRA of the same rank would train.

    SHiRA (Bhardwaj et al. 2024, "Sparse High Rank Adapters"), whose random places do about as well
    as chosen ones. No dropout: MC dropout has nothing to draw from.
    """
    from peft import ShiraConfig

    _check(model, settings.rank)
    config: Any = ShiraConfig(
        r=settings.rank,
        mask_type="random",
        random_seed=settings.seed,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    empty = model.device.type == "meta"  # no places can be drawn, nor do estimates need any
    config.mask_fn = None if empty else config.mask_fn
    model = with_peft(model, config)
    for layer in model.modules() if empty else ():
        for name, values in getattr(layer, "shira_weight", {}).items():
            layer.shira_indices[name] = torch.zeros(2, len(values), dtype=torch.int)
    return Wrapped(model)


def _check(model: Any, rank: int) -> None:
    """A layer has only so many weights."""
    shapes = [
        module.weight.shape
        for block in decoder(model).layers
        for module in block.modules()
        if isinstance(module, torch.nn.Linear)
    ]
    most = min(rows * columns // (rows + columns) for rows, columns in shapes)
    if rank > most:
        raise UserError(
            f"--method sparse: --rank {rank} is more than the layers have; at most {most}"
        )
