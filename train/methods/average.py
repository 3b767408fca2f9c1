"""Weight averaging with the base: going only a part of the way that training went.

Wortsman et al. 2022, "Robust fine-tuning of zero-shot models" (WiSE-FT): between the weights before
and after fine-tuning lie models that keep most of what either is good at.
"""

from typing import Any

import torch

from abstain.adapted import Adapted
from abstain.bottleneck import Bottlenecks
from train.methods.diffpruning import DiffPruning
from train.settings import TrainSettings

# Trained numbers that the update is proportional to, by what their names hold.
_PROPORTIONAL = {
    "lora": "lora_B",
    "rslora": "lora_B",
    "adalora": "lora_E",
    "bitfit": "beft_bias",
    "sparse": "shira_weight",
}
_LAYERS = ("layernorm", "selective", "low-lr", "full")


@torch.no_grad()
def average(model: Any, settings: TrainSettings) -> None:
    """Keep ``settings.average`` of what training has changed; the sufficiency head stays."""
    share, method = settings.average, settings.method
    if method in _PROPORTIONAL:
        for name, parameter in model.named_parameters():
            if _PROPORTIONAL[method] in name:
                parameter.mul_(share)
    elif method in _LAYERS:
        for module in model.modules():
            for trained in getattr(module, "ln_tuning_layers", {}).values():
                for name, parameter in trained.named_parameters():
                    before = module.base_layer.get_parameter(name)
                    parameter.copy_(torch.lerp(before.to(parameter), parameter, share))
    elif isinstance(model, Adapted) and isinstance(model.adapter, DiffPruning):
        for one in model.adapter.gated.values():
            one.difference.mul_(share)
    elif isinstance(model, Adapted) and isinstance(model.adapter, Bottlenecks):
        # Not the weights but what they add: halfway, a token gets half of it.
        for layer in model.adapter.layers:
            for name, parameter in layer.adapters.named_parameters():
                if ".up." in name:
                    parameter.mul_(share)
