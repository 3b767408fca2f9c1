"""LoRA and its kin: low-rank updates beside every linear layer of the frozen model."""

from typing import Any

from abstain.dropout import share_masks
from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """Trainable low-rank matrices on all linear layers but the output.

    LoRA (Hu et al. 2021); rsLoRA, scaled by alpha / √rank (Kalajdzievski 2023); DoRA, which trains
    the length of each output's weights apart (Liu et al. 2024).
    """
    from peft import LoraConfig

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        use_rslora=settings.method == "rslora",
        use_dora=settings.method == "dora",
        task_type="CAUSAL_LM",
    )
    model = with_peft(model, config)
    if settings.dropout_mask == "shared":
        share_masks(model)
    return Wrapped(model)
