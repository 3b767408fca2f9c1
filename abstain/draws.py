"""Random numbers that belong to a name: the same ones whatever else is drawn beside them."""

import hashlib

import numpy as np


def generator(name: str) -> np.random.Generator:
    """A generator of its own for each name, on every machine and in every batch alike."""
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
