"""LoRA (Hu et al. 2021): low-rank updates beside every linear layer of the frozen model."""

from typing import Any

from abstain.dropout import share_masks
from abstain.model import quiet_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings) -> Any:
    """The model with trainable LoRA matrices on all its linear layers but the output."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    # peft takes the base model's name from the model itself; it is what a RUN loads again.
    model.name_or_path = settings.model
    with quiet_peft():
        model = get_peft_model(model, config)
    if settings.dropout_mask == "shared":
        share_masks(model)
    return model
