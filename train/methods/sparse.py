"""Sparse tuning: single weights of the linear layers, at places drawn once."""

import functools
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
    if model.device.type == "meta":  # an estimate, where no places can be drawn
        config.mask_fn = None
        return Wrapped(_without_places(with_peft(model, config)))
    return Wrapped(with_peft(model, config))


def _without_places(model: Any) -> Any:
    """A model without contents whose differences are dense at once: its sparse tensors have none.

    They become dense before they are added to the weights anyway.
    """

    def dense(layer: Any, adapter: str) -> torch.Tensor:
        values = layer.shira_weight[adapter]
        weight = layer.get_base_layer().weight
        at = torch.zeros(len(values), dtype=torch.long)
        return torch.zeros(weight.numel()).scatter(0, at, values).view(weight.shape)

    for layer in model.modules():
        if hasattr(layer, "shira_weight"):
            layer.get_delta_weight = functools.partial(dense, layer)
    return model


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
