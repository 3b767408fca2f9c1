"""Sparse tuning: single weights of the linear layers, at places drawn once."""

from typing import Any

from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """As many single weights of each linear layer as LoRA of the same rank would train.

    SHiRA (Bhardwaj et al. 2024, "Sparse High Rank Adapters"), whose random places do about as well
    as chosen ones. No dropout: MC dropout has nothing to draw from.
    """
    from peft import ShiraConfig

    config = ShiraConfig(
        r=settings.rank,
        mask_type="random",
        random_seed=settings.seed,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    return Wrapped(with_peft(model, config))
