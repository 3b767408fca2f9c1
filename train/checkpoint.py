"""Checkpoints: everything that a killed run needs to go on as if nothing had happened."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from curate.errors import UserError
from curate.files import replacing
from train import parallel
from train.methods.wrapped import Wrapped

FOLDER = "checkpoint"
LAST = "last.pt"
BEST = "best.pt"


@dataclass
class Progress:
    """How far a run has come, in plain values."""

    step: int = 0
    seconds: float = 0.0
    tokens: int = 0  # read, a shared prefix once
    peak_memory: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_from: int = 0  # weights of earlier steps are not yet what the method promises
    averaged: dict[str, float] | None = None  # validation of what `average` made of the best

    def best(self) -> dict[str, float] | None:
        """The evaluation with the lowest loss so far."""
        counted = [e for e in self.evaluations if e["step"] >= self.best_from]
        return min(counted, key=lambda e: e["total"], default=None)

    def stale(self) -> int:
        """How many evaluations have passed since the best one."""
        best = self.best()
        return 0 if best is None else len(self.evaluations) - 1 - self.evaluations.index(best)


def trainable(*modules: Any) -> dict[str, torch.Tensor]:
    """The trainable tensors of some modules, named by module and parameter."""
    return {
        f"{index}.{name}": parameter.detach()
        for index, module in enumerate(modules)
        if module is not None
        for name, parameter in module.named_parameters()
        if parameter.requires_grad
    }


def restore(tensors: dict[str, torch.Tensor], *modules: Any) -> None:
    """Copy tensors that `trainable` gave back into the same modules."""
    with torch.no_grad():
        for name, parameter in trainable(*modules).items():
            parameter.copy_(tensors[name])


def save_best(run: Path, *modules: Any) -> None:
    """Keep the weights of the best validation loss."""
    if parallel.rank() == 0:
        _write(run / FOLDER / BEST, trainable(*modules))


def load_best(run: Path, *modules: Any) -> None:
    """Put the best weights back, where an evaluation has kept any."""
    path = run / FOLDER / BEST
    parallel.wait()
    if path.exists():
        restore(_load(path), *modules)


def save(
    run: Path,
    fingerprint: str,
    progress: Progress,
    optimizer: Any,
    scheduler: Any,
    wrapped: Wrapped,
    head: Any,
) -> None:
    """Write weights, optimiser, schedule, random state and progress as one atomic file."""
    state = {
        "fingerprint": fingerprint,
        "progress": progress.__dict__,
        "weights": trainable(wrapped.model, head),
        "method": wrapped.state() if wrapped.state is not None else None,
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "random": parallel.everybodys(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["random_cuda"] = parallel.everybodys(torch.cuda.get_rng_state())
    if parallel.rank() == 0:
        _write(run / FOLDER / LAST, state)


def resume(
    run: Path, fingerprint: str, optimizer: Any, scheduler: Any, wrapped: Wrapped, head: Any
) -> Progress | None:
    """Load the last checkpoint, if there is one; refuse one of other data or settings."""
    path = run / FOLDER / LAST
    if not path.exists():
        return None
    state = _load(path)
    if state["fingerprint"] != fingerprint:
        raise UserError(
            f"{run}: holds a checkpoint of other data or other settings; "
            "give the same ones to resume it, another --out, or --fresh to discard it"
        )
    restore(state["weights"], wrapped.model, head)
    if wrapped.load_state is not None:
        wrapped.load_state(state["method"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    if len(state["random"]) != parallel.processes():
        raise UserError(
            f"{run}: its checkpoint is of {len(state['random'])} processes, not of "
            f"{parallel.processes()}; start as many, or start over with --fresh"
        )
    torch.set_rng_state(state["random"][parallel.rank()])
    if "random_cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random_cuda"][parallel.rank()])
    return Progress(**state["progress"])


def _write(path: Path, state: Any) -> None:
    # An open file, because torch's own reports a full disk as a fault of its own.
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def _load(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError) as error:
        raise UserError(f"{path}: damaged ({error}); start over with --fresh") from error
