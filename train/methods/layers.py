"""Training layers of the model itself: all, the highest blocks, or only its normalisations."""

from typing import Any

from torch import nn

from abstain.blocks import decoder
from curate.errors import UserError
from train.methods.wrapped import Wrapped, with_peft
from train.settings import TrainSettings


def wrap(model: Any, settings: TrainSettings, steps: int = 0) -> Wrapped:
    """Trainable copies of some layers; the originals stay, so that the base can be had again.

    PEFT's LN tuning (Zhao et al. 2023) trains copies of whichever modules it is pointed at: here
    the normalisations (``layernorm``), all layers of the highest blocks (``selective``,
    ``low-lr``), or every layer with weights (``full``). No dropout: MC dropout has nothing to draw
    from.
    """
    from peft import LNTuningConfig

    config = LNTuningConfig(target_modules=_targets(model, settings), task_type="CAUSAL_LM")
    return Wrapped(with_peft(model, config))


def _targets(model: Any, settings: TrainSettings) -> list[str]:
    """Full names of the modules that are trained."""
    leaves = {
        name: module
        for name, module in model.named_modules()
        if any(True for _ in module.parameters(recurse=False))
    }
    if settings.method == "full":
        return _untied(model, leaves)
    if settings.method == "layernorm":
        return [name for name, module in leaves.items() if "norm" in type(module).__name__.lower()]
    blocks = decoder(model).layers
    if settings.top_layers > len(blocks):
        raise UserError(
            f"--top-layers {settings.top_layers}: {settings.model} has {len(blocks)} blocks"
        )
    highest = {module for block in blocks[-settings.top_layers :] for module in block.modules()}
    return [name for name, module in leaves.items() if module in highest]


def _untied(model: Any, leaves: dict[str, nn.Module]) -> list[str]:
    """All but embeddings that the output layer shares: two copies of one matrix would part."""
    head = model.get_output_embeddings()
    embedding = model.get_input_embeddings()
    tied = head is not None and head.weight is embedding.weight
    return [n for n, module in leaves.items() if not (tied and module in (head, embedding))]
