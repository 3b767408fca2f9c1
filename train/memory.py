"""How much memory this process has needed, and how to need less."""

import contextlib
import ctypes
import os
import resource
import sys


def peak_memory() -> float:
    """Largest resident size so far in GiB; of the accelerator's memory, where there is one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return peak_resident(resource.RUSAGE_SELF)


def peak_resident(who: int) -> float:
    """Largest resident size in GiB of this process, or of the largest of its children."""
    unit = 1 if sys.platform == "darwin" else 1024  # the kernels disagree: bytes or KiB
    return resource.getrusage(who).ru_maxrss * unit / 2**30


def limit_kernel_cache() -> None:
    """Have oneDNN keep few compiled kernels; before the first multiplication, or it has no effect.

    It keeps 1,024 by default, each with its scratch memory. A pack needs a few dozen, and new ones
    for each length: several hundred megabytes after some hundred steps, for no speed.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


_MMAP_THRESHOLD = -3  # glibc's number for it
# Bytes of a block that is given back when it is freed; with 128 KiB training takes twice as long.
LEAN_FROM = 1 << 20


def free_at_once() -> None:
    """Have the C library give every freed block of a megabyte back at once, where it can (glibc).

    Left alone it raises that bound to 32 MB, keeps the blocks below, and finds no use for many of
    them, since tensors are aligned (glibc bug 30723): a process holds more than twice of what is
    alive. The price is that the system must clear each block anew.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LEAN_FROM)


def release_memory() -> None:
    """Give freed memory back to the system, where the C library can (glibc).

    Packs differ in length, and so do their activations; what is freed between them splinters,
    and over a few hundred steps the process would grow by a gigabyte that it does not use.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
