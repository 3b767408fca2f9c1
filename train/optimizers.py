"""The optimisers that `train run` offers, made from its settings."""

from collections.abc import Sequence
from typing import Any

import torch

from curate.errors import UserError
from train.settings import TrainSettings


def make(
    parameters: Sequence[torch.nn.Parameter], settings: TrainSettings
) -> torch.optim.Optimizer:
    """AdamW, Adam, or AdamW whose two moments are kept in 8 bits (Dettmers et al. 2022)."""
    rate, decay = settings.rate, settings.weight_decay
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    try:
        from bitsandbytes import optim
    except ImportError as error:
        raise UserError(
            "adamw8bit needs bitsandbytes: pip install 'grounded-abstain[quantised]'"
        ) from error
    kind: Any = vars(optim)["AdamW8bit"]
    made: torch.optim.Optimizer = kind(parameters, lr=rate, weight_decay=decay)
    return made


def bytes_a_weight(settings: TrainSettings) -> float:
    """What an optimiser keeps of each trained weight: two moments, in 8 bits with their scales.

    Tensors of fewer than 4,096 weights keep theirs in 32 bits in any case.
    """
    return 2 * (1 + 4 / 256) if settings.optimizer == "adamw8bit" else 8.0
