"""AdaLoRA: LoRA in the form of a singular value decomposition, its ranks moved where they pay."""

from typing import Any

import torch
from torch import Tensor

from abstain.dropout import share_masks
from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings

ORTHOGONALITY = 0.1  # weight of the penalty, as in the paper's experiments (0.1 to 0.5)


def wrap(model: Any, settings: TrainSettings, steps: int) -> Wrapped:
    """Half as many ranks again as LoRA at first, pruned to LoRA's number over the run.

    Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning". Singular
    values whose product of weight and gradient matters least are set to zero, from a tenth of the
    steps on; the last fifth trains what is left.
    """
    from peft import AdaLoraConfig

    final = max(1, steps // 5)
    config = AdaLoraConfig(
        init_r=settings.rank + (settings.rank + 1) // 2,
        target_r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules="all-linear",
        tinit=max(1, steps // 10),
        tfinal=final,
        deltaT=max(1, steps // 50),
        total_step=max(steps, 4),
        orth_reg_weight=ORTHOGONALITY,
        task_type="CAUSAL_LM",
    )
    model = with_peft(model, config)
    if settings.dropout_mask == "shared":
        share_masks(model)
    allocator = model.base_model.rankallocator

    def state() -> dict[str, Any]:
        kept = {name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        return {**kept, "rank_pattern": config.rank_pattern}

    def load_state(value: dict[str, Any]) -> None:
        config.rank_pattern = value["rank_pattern"]
        for name in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
            kept = {k: v.to(model.device) for k, v in value[name].items()}
            setattr(allocator, name, kept)

    return Wrapped(
        model,
        penalty=lambda: ORTHOGONALITY * orthogonality(model),
        after_step=model.base_model.update_and_allocate,
        state=state,
        load_state=load_state,
        # Earlier weights have other ranks than those that are stored in the end.
        best_from=min(steps, max(steps, 4) - final),
    )


def orthogonality(model: Any) -> Tensor:
    """How far the singular vectors are from orthonormal: mean Frobenius norm over the matrices."""
    norms = []
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            product = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            norms.append(torch.norm(product - torch.eye(len(product), device=product.device)))
    return torch.stack(norms).mean()
