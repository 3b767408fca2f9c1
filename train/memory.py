"""How much memory this process has needed."""

import resource
import sys

import torch


def peak_memory() -> float:
    """Largest resident size so far in GiB; of the accelerator's memory, where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # the kernels disagree: bytes or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
