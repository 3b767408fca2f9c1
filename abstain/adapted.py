"""Adapters of our own, for methods that PEFT lacks: saved, loaded and switched off as its are."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from safetensors.torch import load_file, save
from torch import Tensor, nn

from abstain.run import CONFIG, KIND, WEIGHTS
from curate.errors import UserError
from curate.files import replacing, write_json


class Adapter(Protocol):
    """What has been put into a base model."""

    kind: str

    def config(self) -> dict[str, Any]:
        """What it takes to make it again, in plain values."""

    def tensors(self) -> dict[str, Tensor]:
        """Its weights."""

    def enable(self, on: bool) -> None:
        """Let it act, or have the base model as it was."""


class Adapted(nn.Module):
    """A base model with an adapter in it; what it does not have itself, the base has."""

    def __init__(self, base: Any, adapter: Adapter) -> None:
        super().__init__()
        self.base = base
        self.adapter = adapter

    def forward(self, *arguments: Any, **more: Any) -> Any:
        """The base model's, through the adapter."""
        return self.base(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base"), name)

    def get_base_model(self) -> Any:
        """The model that the adapter is in."""
        return self.base

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Have the base model's outputs meanwhile."""
        self.adapter.enable(False)
        try:
            yield
        finally:
            self.adapter.enable(True)

    def save_pretrained(self, folder: Path) -> None:
        """Write the adapter and what it belongs to."""
        tensors = {k: v.detach().cpu().contiguous() for k, v in self.adapter.tensors().items()}
        with replacing(folder / WEIGHTS) as temporary:
            temporary.write_bytes(save(tensors))
        base = {"base_model_name_or_path": self.base.name_or_path}
        write_json(folder / CONFIG, {KIND: self.adapter.kind, **base, **self.adapter.config()})


def load_adapted(base: Any, run: Path, config: dict[str, Any]) -> Adapted:
    """Put the adapter that a run stores into its base model."""
    from abstain.bottleneck import Bottlenecks
    from abstain.difference import Difference

    kinds: dict[str, Any] = {Bottlenecks.kind: Bottlenecks.load, Difference.kind: Difference.load}
    if config[KIND] not in kinds:
        raise UserError(
            f"{run / CONFIG}: unknown adapter '{config[KIND]}'; a newer version wrote it?"
        )
    try:
        adapter = kinds[config[KIND]](base, config, load_file(run / WEIGHTS))
    except (KeyError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"{run}: its adapter does not fit the base model {config['base_model_name_or_path']}: "
            f"{error}"
        ) from error
    return Adapted(base, adapter).to(base.device)
