"""Training in bfloat16: autocast, and the frozen weights rounded once for it."""

import contextlib
import functools
from typing import Any, Literal

import torch

from abstain.model import device


def prepare(model: Any, setting: Literal["auto", "on", "off"]) -> Any:
    """Ready a model for the precision that it is to be trained in; a context-manager factory.

    "auto" is bfloat16 where the processor computes in it. The factory gives the context that every
    forward pass has to run in from now on.
    """
    if setting == "off" or (setting == "auto" and not has_bfloat16()):
        return contextlib.nullcontext
    round_frozen_weights(model, torch.bfloat16)
    return functools.partial(torch.autocast, device().type, dtype=torch.bfloat16)


def has_bfloat16() -> bool:
    """Whether this machine multiplies bfloat16 matrices in hardware."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def round_frozen_weights(model: Any, dtype: torch.dtype) -> None:
    """Keep the frozen weights of linear layers in the type that autocast computes in.

    It would round them to the same numbers in every pass, and keep those until the backward pass.
    Embeddings stay as they are, and so does an output layer that shares their weights. Other
    weights are copied, because a single one that still lies in the mapped file keeps all of the
    file resident.
    """
    shared = model.get_input_embeddings().weight
    linear = {m.weight for m in model.modules() if isinstance(m, torch.nn.Linear)} - {shared}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            rounded = dtype if parameter in linear else parameter.dtype
            parameter.data = parameter.data.to(rounded, copy=True)
