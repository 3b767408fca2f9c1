"""A sparse difference: single weights of a model, changed."""

from typing import Any

import torch
from torch import Tensor


class Difference:
    """Some weights' new values, laid over a model and taken away again without a trace."""

    kind = "difference"

    def __init__(self, base: Any, tensors: dict[str, Tensor]) -> None:
        """``tensors``: for a parameter p, flat places p.at (int) and new values p.to."""
        self._tensors = tensors
        names = sorted(name.removesuffix(".at") for name in tensors if name.endswith(".at"))
        self._places = [
            (base.get_parameter(name), tensors[f"{name}.at"].long(), tensors[f"{name}.to"])
            for name in names
        ]
        self._before = [parameter.data.view(-1)[at.to(parameter.device)].clone()
                        for parameter, at, _ in self._places]  # fmt: skip
        self.enable(True)

    def config(self) -> dict[str, Any]:
        """Nothing but its weights."""
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """Places and values."""
        return self._tensors

    @torch.no_grad()
    def enable(self, on: bool) -> None:
        """Write the new values, or the old ones."""
        for (parameter, at, values), before in zip(self._places, self._before, strict=True):
            new = values.to(parameter) if on else before
            parameter.data.view(-1)[at.to(parameter.device)] = new

    @classmethod
    def load(cls, base: Any, config: dict[str, Any], tensors: dict[str, Tensor]) -> "Difference":
        """From what a run stores. The base's weights lie in a mapped file: they are copied."""
        for name in {name.rpartition(".")[0] for name in tensors}:
            parameter = base.get_parameter(name)
            parameter.data = parameter.data.clone()
        return cls(base, tensors)
