"""The sufficiency head: does the context hold the answer, read before a token is generated.

Answerability is decodable from a model's middle layers even where its output does not show it
(Slobodkin et al. 2023, "The Curious Case of Hallucinatory (Un)answerability"). Trained together
with the answer loss, the head also shapes those layers, which makes abstention learnable.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from abstain.run import HEAD
from curate.errors import UserError
from curate.files import replacing


class SufficiencyHead(nn.Module):
    """One linear read-out for each of a few middle layers, their logits averaged."""

    def __init__(self, layers: Sequence[int], hidden_size: int) -> None:
        super().__init__()
        self.layers = tuple(layers)
        # Not zero: the gradient that reaches the layers below is proportional to these weights.
        spread = hidden_size**-0.5
        self.weight = nn.Parameter(torch.empty(len(self.layers), hidden_size))
        nn.init.uniform_(self.weight, -spread, spread)
        self.bias = nn.Parameter(torch.zeros(len(self.layers)))

    def forward(self, hidden: Tensor) -> Tensor:
        """Logits that the context suffices: [rows, layers, hidden] to [rows]."""
        logits = (scaled(hidden) * self.weight).sum(-1) + self.bias
        return logits.mean(-1)

    def save(self, folder: Path, file: str = HEAD) -> None:
        """Write the head beside the adapter."""
        tensors = {name: value.contiguous() for name, value in self.state_dict().items()}
        tensors["layers"] = torch.tensor(self.layers)
        with replacing(folder / file) as temporary:
            temporary.write_bytes(save(tensors))


def scaled(hidden: Tensor) -> Tensor:
    """Hidden states divided by their root mean square: residual streams grow with depth."""
    return hidden * hidden.pow(2).mean(-1, keepdim=True).add(1e-6).rsqrt()


def middle_layers(count: int) -> tuple[int, ...]:
    """The layers that the head reads by default: four between 60 % and 90 % of the depth."""
    return tuple(sorted({max(1, round(count * share)) for share in (0.6, 0.7, 0.8, 0.9)}))


def load_head(folder: Path, file: str = HEAD) -> SufficiencyHead | None:
    """The head stored in a run's folder, or None where it was trained without one."""
    path = folder / file
    if not path.exists():
        return None
    tensors = load_file(path)
    missing = {"layers", "weight", "bias"} - set(tensors)
    if missing:
        raise UserError(f"{path}: {', '.join(sorted(missing))} missing; train the run again")
    layers = tensors.pop("layers").tolist()
    head = SufficiencyHead(layers, tensors["weight"].shape[1])
    head.load_state_dict(tensors)
    return head.eval()
