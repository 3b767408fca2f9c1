"""Bases larger than the device: frozen blocks lie in RAM or on disk, and are fetched as they run.

Accelerate's hooks fetch a layer's weights before it computes and drop them afterwards. That saves
memory only where blocks compute their activations twice: what a block keeps for its backward pass
would hold on to its weights. It is a GPU's memory that is saved; a process on the CPU alone has its
base mapped from disk as it is, and the system fetches and drops what is needed.
"""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Literal

import torch

from abstain.blocks import decoder
from abstain.model import LoadedModel, device, load_model, model_config, random_model
from curate.errors import UserError

To = Literal["cpu", "disk"]


def load(name: str, to: To) -> LoadedModel:
    """The base ``name`` with its blocks' weights in RAM (``cpu``) or where they lie on disk.

    Raises `UserError` for RAM where there is no accelerator, and for weights that would have to be
    copied before they can be fetched one by one.
    """
    if to == "cpu" and device().type == "cpu":
        raise UserError("--offload cpu: they lie in RAM as it is; there is --offload disk")
    # It tells that some weights are not in memory, which was asked for.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    try:
        return load_model(name, device_map=device_map(name, to))
    except UserError as error:
        raise UserError(
            f"{error}\n  for --offload {to}, weights must lie in safetensors files"
        ) from error


@contextlib.contextmanager
def stand_ins(model: Any) -> Iterator[None]:
    """Weights of one number, shown as often as it takes, in the place of those that are away.

    PEFT puts what it adds beside a weight on that one's device, and would put it nowhere.
    """
    away = [
        (module, name, weight)
        for module in model.modules()
        for name, weight in module.named_parameters(recurse=False)
        if weight.is_meta
    ]
    for module, name, weight in away:
        shown = torch.zeros(1, dtype=weight.dtype, device=device()).expand(weight.shape)
        module._parameters[name] = torch.nn.Parameter(shown, requires_grad=False)
        weight.requires_grad_(False)  # fetched as it is told here: no gradients of what is frozen
    yield
    for module, name, weight in away:
        module._parameters[name] = weight


def device_map(name: str, to: To) -> dict[str, Any]:
    """Where each part of a model goes: its blocks to ``to``, everything else to the device."""
    with torch.device("meta"):
        model = random_model(model_config(name), name)
    blocks = {id(block) for block in decoder(model).layers}
    found: dict[str, Any] = {}

    def place(module: Any, path: str) -> None:
        """Whole modules as far as they hold no block."""
        if id(module) in blocks:
            found[path] = to
        elif any(id(inner) in blocks for inner in module.modules()):
            for child, inner in module.named_children():
                place(inner, f"{path}.{child}" if path else child)
        else:
            found[path] = torch.cuda.current_device() if device().type == "cuda" else "cpu"

    place(model, "")
    return found
