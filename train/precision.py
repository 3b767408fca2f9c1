"""Training in bfloat16: autocast, and the frozen weights rounded once for it."""

import contextlib
import functools
from typing import Any, Literal

import torch
from torch.nn.utils import parametrize

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
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def round_frozen_weights(model: Any, dtype: torch.dtype) -> None:
    """Keep the frozen weights of linear layers in the type that autocast computes in.

    It would round them to the same numbers in every pass, and keep those until the backward pass.
    Embeddings stay as they are, and so do an output layer that shares their weights and layers of
    which a copy is trained, since one may want to come back to them. Other weights are copied,
    because a single one that still lies in the mapped file keeps all of the file resident.
    """
    kept = {model.get_input_embeddings().weight}
    kept |= {p for m in model.modules() if hasattr(m, "ln_tuning_layers")
             for p in m.base_layer.parameters()}  # fmt: skip
    linear = {_own(m) for m in model.modules() if isinstance(m, torch.nn.Linear)} - kept
    for parameter in model.parameters():
        # What is quantised stays so.
        offloaded = parameter.is_meta  # comes as it is stored, and autocast rounds it each time
        if not parameter.requires_grad and parameter.is_floating_point() and not offloaded:
            rounded = dtype if parameter in linear else parameter.dtype
            parameter.data = parameter.data.to(rounded, copy=True)


def _own(layer: torch.nn.Linear) -> torch.Tensor:
    """A layer's weight as it is stored, where a parametrisation makes another one of it."""
    if parametrize.is_parametrized(layer, "weight"):
        original: torch.Tensor = layer.parametrizations["weight"].original  # type: ignore[index,union-attr]
        return original
    return layer.weight
