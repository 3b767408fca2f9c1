"""Bottleneck adapters: a small network behind each feed-forward layer, and attention over several.

Houlsby et al. 2019, "Parameter-Efficient Transfer Learning for NLP", at the one place a block that
Pfeiffer et al. 2021, "AdapterFusion", found to be enough. Fusion is theirs too: what a token is
decides, in each block, which of several trained adapters speak.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from abstain.blocks import decoder
from abstain.dropout import SharedDropout
from curate.errors import UserError


class Bottleneck(nn.Module):
    """hidden → size → hidden; its output is added to the layer's, zero at first."""

    def __init__(self, hidden: int, size: int, dropout: float) -> None:
        super().__init__()
        self.in_features = hidden
        # Under a name, as in PEFT's layers, so that MC dropout can take its place.
        self.adapter_dropout = nn.ModuleDict({"default": SharedDropout(dropout)})
        self.down = nn.Linear(hidden, size)
        self.up = nn.Linear(size, hidden)
        nn.init.normal_(self.down.weight, std=hidden**-0.5)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, states: Tensor) -> Tensor:
        """[..., hidden] to what is added to them."""
        dropped = self.adapter_dropout["default"](states)
        added: Tensor = self.up(functional.gelu(self.down(dropped)))
        return added


class Fusion(nn.Module):
    """Attention of a state over what several adapters would add to it."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden, bias=False)
        nn.init.eye_(self.value.weight)

    def forward(self, states: Tensor, added: Tensor) -> Tensor:
        """``states`` [..., hidden] and ``added`` [adapters, ..., hidden] to [..., hidden]."""
        scores = (self.query(states) * self.key(added)).sum(-1) / states.shape[-1] ** 0.5
        mixed: Tensor = (scores.softmax(0)[..., None] * self.value(added)).sum(0)
        return mixed


class WithBottlenecks(nn.Module):
    """A feed-forward layer and the adapters behind it."""

    def __init__(self, layer: Any, adapters: Sequence[Bottleneck], fusion: Fusion | None) -> None:
        super().__init__()
        self.layer = layer
        self.adapters = nn.ModuleList(adapters)
        self.fusion = fusion
        self.on = True

    def forward(self, states: Any) -> Any:
        """The layer's output, and what the adapters add to it."""
        states = self.layer(states)
        if self.on:
            added = torch.stack([adapter(states) for adapter in self.adapters])
            states = states + (added.sum(0) if self.fusion is None else self.fusion(states, added))
        return states


class Bottlenecks:
    """The adapters of all blocks of a model."""

    kind = "bottleneck"

    def __init__(self, base: Any, size: int, dropout: float, count: int = 1, fused: bool = False):
        """Puts ``count`` adapters into every block, and a fusion if they are to be fused."""
        self._config = {"size": size, "dropout": dropout, "count": count, "fused": fused}
        hidden = base.config.get_text_config().hidden_size
        self.layers: list[WithBottlenecks] = []
        for block in decoder(base).layers:
            if not isinstance(getattr(block, "mlp", None), nn.Module):
                raise UserError(
                    f"the blocks of {type(base).__name__} have no `mlp`, behind which bottleneck "
                    "adapters go; use another --method"
                )
            adapters = [Bottleneck(hidden, size, dropout) for _ in range(count)]
            block.mlp = WithBottlenecks(block.mlp, adapters, Fusion(hidden) if fused else None)
            self.layers.append(block.mlp)

    def config(self) -> dict[str, Any]:
        """What `load` needs."""
        return self._config

    def tensors(self) -> dict[str, Tensor]:
        """By block and module."""
        return {
            f"{number}.{name}": tensor
            for number, layer in enumerate(self.layers)
            for name, tensor in layer.state_dict().items()
            if not name.startswith("layer.")
        }

    def enable(self, on: bool) -> None:
        """Let the adapters speak, or be still."""
        for layer in self.layers:
            layer.on = on

    def put(self, tensors: dict[str, Tensor]) -> None:
        """Weights by the names of `tensors`; KeyError where one is missing."""
        with torch.no_grad():
            for name, tensor in self.tensors().items():
                tensor.copy_(tensors[name])

    @classmethod
    def load(cls, base: Any, config: dict[str, Any], tensors: dict[str, Tensor]) -> "Bottlenecks":
        """From what a run stores."""
        made = cls(base, config["size"], config["dropout"], config["count"], config["fused"])
        made.put(tensors)
        return made
