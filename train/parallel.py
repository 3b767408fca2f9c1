"""Data-parallel training: several processes, each with the whole model, share every step's packs.

    torchrun --nproc-per-node 2 $(which train) run --data out/data --out out/run [--shard]

A step's losses are divided by the token and row counts of the whole step, so gradients need only be
summed over the processes: two of them take the step that one would, whatever packs fall to whom.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from train.collate import Example
from train.steps import Losses

_PATIENCE = datetime.timedelta(hours=2)  # one process may validate while others wait


def start() -> None:
    """Join the other processes, where `torchrun` has started several."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not dist.is_initialized():
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=_PATIENCE)


def rank() -> int:
    """The number of this process; the first one, 0, writes."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    """How many share the work."""
    return dist.get_world_size() if dist.is_initialized() else 1


def wait() -> None:
    """Until all processes are here."""
    if dist.is_initialized():
        dist.barrier()


@contextlib.contextmanager
def one_first() -> Iterator[None]:
    """The first process finds something and keeps it on disk; then the others read it there."""
    if rank() > 0:
        wait()
    yield
    if rank() == 0:
        wait()


def stop() -> None:
    """Part from the others."""
    if dist.is_initialized():
        dist.destroy_process_group()


def share(batch: Sequence[list[Example]], number: int, count: int) -> list[list[Example]]:
    """The packs of one step that fall to process ``number`` of ``count``.

    The largest pack goes to whoever has least to read so far, a prefix counted once: all are done
    at about the same time. (Longest processing time first, Graham 1969.)
    """
    if count == 1:
        return list(batch)
    shares: list[list[int]] = [[] for _ in range(count)]
    loads = [0] * count
    sizes = [_tokens(pack) for pack in batch]
    for index in sorted(range(len(batch)), key=lambda i: (-sizes[i], i)):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += sizes[index]
    return [batch[index] for index in sorted(shares[number])]


def _tokens(pack: Sequence[Example]) -> int:
    """Nearly the tokens of a pack's tree: its longest prompt, and what the others add."""
    shortest = min(len(example.prompt) for example in pack)
    own = sum(len(example.prompt) - shortest + len(example.answer) for example in pack)
    return shortest + own


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up everybody's gradients; who had no pack adds nothing.

    Where nobody has one there is none afterwards either, as in a single process.
    """
    if processes() == 1:
        return
    device = parameters[0].device
    had = torch.tensor([p.grad is not None for p in parameters], device=device).int()
    dist.all_reduce(had)
    some = [p for p, count in zip(parameters, had.tolist(), strict=True) if count]
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in some]
    flat = torch.cat([grad.flatten() for grad in grads])
    dist.all_reduce(flat)
    place = 0
    for parameter, grad in zip(some, grads, strict=True):
        parameter.grad = flat[place : place + grad.numel()].view_as(grad)
        place += grad.numel()


def summed(losses: Losses) -> Losses:
    """The losses of everybody's part of a step."""
    total = Losses()
    for part in everybodys(losses):
        total.add(part)
    return total


def everybodys(value: Any) -> list[Any]:
    """What each process has, in the order of their numbers."""
    if processes() == 1:
        return [value]
    found: list[Any] = [None] * processes()
    dist.all_gather_object(found, value)
    return found
