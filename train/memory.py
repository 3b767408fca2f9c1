"""How much memory this process has needed."""

import contextlib
import ctypes
import resource
import sys

import torch


def peak_memory() -> float:
    """Largest resident size so far in GiB; of the accelerator's memory, where there is one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    unit = 1 if sys.platform == "darwin" else 1024  # the kernels disagree: bytes or KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def release_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc).

    Packs differ in length, and so do their activations; what is freed between them splinters,
    and over a few hundred steps the process would grow by a gigabyte that it does not use.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
