"""DiffPruning: a sparse difference from the base model, whose places are learned."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from abstain.adapted import Adapted
from abstain.difference import Difference
from curate.errors import UserError
from train.methods.wrapped import Wrapped
from train.settings import TrainSettings

# Gates are drawn between these bounds and cut to 0 … 1 (Guo et al. 2021, section 3.1).
LOW, HIGH = -1.5, 1.5
# Log-odds of a gate are this times the trained number: with Adam, whose steps are as large as its
# rate, gates then move 1,000 times as fast as weights do. Guo et al. give them a rate of 0.1.
SPEED = 1000.0
START = 5.0  # log-odds at first: nearly all gates are open
L0 = 0.1  # weight of the mean share of open gates
PROJECT_AT = 0.4  # share of the steps after which the places are fixed
# The few that are left then bear the rate of an adapter, as `sparse` has it, not of all weights.
FASTER = 10.0


class Gated(nn.Module):
    """weight + gate · difference, a gate for each single weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.difference = nn.Parameter(torch.zeros_like(weight, dtype=torch.float32))
        self.gate = nn.Parameter(torch.full_like(self.difference, START / SPEED))
        self.on = True
        self.scale = 1.0  # of the difference, and so of its learning rate

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that the layer uses."""
        if not self.on:
            return weight
        return weight + self.gates().mul_(self.scale) * self.difference

    def gates(self) -> Tensor:
        """Hard-concrete gates (Louizos et al. 2018): drawn in training, else their middle."""
        odds = SPEED * self.gate
        if self.training:
            odds = odds + torch.rand_like(odds).clamp_(1e-6, 1 - 1e-6).logit_()
        return (odds.sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)

    def open(self) -> Tensor:
        """Expected number of gates that are not shut."""
        return (SPEED * self.gate).sigmoid().sum()


class DiffPruning:
    """The gated differences of all linear layers of a model but its output."""

    kind = Difference.kind

    def __init__(self, base: Any, density: float) -> None:
        self.density = density
        base.requires_grad_(False)
        shared = base.get_input_embeddings().weight
        head = base.get_output_embeddings()
        self.gated: dict[str, Gated] = {}
        for name, module in list(base.named_modules()):
            if isinstance(module, nn.Linear) and module is not head and module.weight is not shared:
                self.gated[f"{name}.weight"] = Gated(module.weight)
                parametrize.register_parametrization(
                    module, "weight", self.gated[f"{name}.weight"], unsafe=True
                )
        if not self.gated:
            raise UserError(f"diffpruning finds no linear layers in {type(base).__name__}")
        self._base = base

    def config(self) -> dict[str, Any]:
        """For a reader; loading needs the weights alone."""
        return {"density": self.density}

    def enable(self, on: bool) -> None:
        """Use the differences, or not."""
        for one in self.gated.values():
            one.on = on

    @torch.no_grad()
    def project(self) -> None:
        """Keep the largest differences, as many as ``density`` allows, and fix the gates.

        Fixed gates are so far up or down that they are 1 or 0 whatever is drawn.
        """
        sizes = torch.cat([self._size(one).flatten() for one in self.gated.values()])
        least = sizes.kthvalue(max(1, round(len(sizes) * (1 - self.density)))).values
        for one in self.gated.values():
            one.gate.copy_(torch.where(self._size(one) > least, 1.0, -1.0))
            one.difference.div_(FASTER)
            one.scale = FASTER

    @staticmethod
    def _size(one: Gated) -> Tensor:
        middle = ((SPEED * one.gate).sigmoid() * (HIGH - LOW) + LOW).clamp(0, 1)
        return (middle * one.scale * one.difference).abs()

    @torch.no_grad()
    def tensors(self) -> dict[str, Tensor]:
        """As `Difference` reads them: what differs, and what it became."""
        found: dict[str, Tensor] = {}
        for name, one in self.gated.items():
            at = self._size(one).flatten().nonzero()[:, 0]
            place = name.removesuffix(".weight")
            original = self._base.get_submodule(place).parametrizations.weight.original
            new = original.flatten()[at].float() + one.scale * one.difference.flatten()[at]
            found |= {f"{name}.at": at.int(), f"{name}.to": new}
        return found


def wrap(model: Any, settings: TrainSettings, steps: int) -> Wrapped:
    """Learn which weights to change while changing them; then fix the places and go on.

    Guo et al. 2021, "Parameter-Efficient Transfer Learning with Diff Pruning", with a gate for each
    weight (not their groups of rows). No dropout: MC dropout has nothing to draw from.
    """
    adapter = DiffPruning(model, settings.density)
    total = sum(one.gate.numel() for one in adapter.gated.values())
    project_at = max(1, round(steps * PROJECT_AT))

    def after_step(step: int) -> None:
        if step == project_at:
            adapter.project()

    def penalty() -> Tensor:
        return L0 * torch.stack([one.open() for one in adapter.gated.values()]).sum() / total

    def state() -> dict[str, Any]:
        return {"scale": next(iter(adapter.gated.values())).scale}

    def load_state(value: dict[str, Any]) -> None:
        for one in adapter.gated.values():
            one.scale = value["scale"]

    return Wrapped(
        Adapted(model, adapter),
        penalty=penalty,
        after_step=after_step,
        best_from=project_at,
        state=state,
        load_state=load_state,
    )
