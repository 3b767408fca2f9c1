"""Near-duplicate texts: MinHash (Broder 1997) finds candidates, exact Jaccard decides.

Sixteen bands of eight hashes find 95 % of the pairs at a Jaccard similarity of 0.8, and more above
it; `benchmarks/curate.py` holds that against brute force. Memory is 512 bytes a text.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.text import words

HASHES, BANDS = 128, 16
SIMILAR = 0.8
SHINGLE = 3  # words
_SEED = 42


@functools.lru_cache(maxsize=10_000)
def shingles(text: str) -> frozenset[str]:
    """The runs of three words; of shorter texts, the words together."""
    found = words(text)
    if len(found) < SHINGLE:
        return frozenset([" ".join(found)] if found else [])
    return frozenset(" ".join(found[i : i + SHINGLE]) for i in range(len(found) - SHINGLE + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """|A ∩ B| / |A ∪ B|; 0 for two empty sets."""
    common = len(one & other)
    union = len(one) + len(other) - common
    return common / union if union else 0.0


class _Forest:
    """What hangs together (union–find); the first of a cluster stands for it."""

    def __init__(self, size: int) -> None:
        self.parent = list(range(size))
        self.joins: list[tuple[int, int]] = []

    def root(self, number: int) -> int:
        while self.parent[number] != number:
            self.parent[number] = self.parent[self.parent[number]]
            number = self.parent[number]
        return number

    def join(self, one: int, other: int) -> None:
        a, b = self.root(one), self.root(other)
        if a != b:
            self.parent[max(a, b)] = min(a, b)
            self.joins.append((one, other))


def joins(texts: Sequence[str], similar: float = SIMILAR) -> list[tuple[int, int]]:
    """Pairs of numbers of similar texts, as many as tie every cluster together: a forest.

    Where a cluster reaches over a border, one of its pairs does.
    """
    return _grow(texts, similar).joins


def clusters(texts: Sequence[str], similar: float = SIMILAR) -> list[int]:
    """For each text the number of the first one of its cluster."""
    forest = _grow(texts, similar)
    return [forest.root(number) for number in range(len(texts))]


def _grow(texts: Sequence[str], similar: float) -> _Forest:
    forest = _Forest(len(texts))
    for bucket in _buckets(_sketches(texts)):
        # One text stands for each cluster that the bucket holds: comparing all with all would
        # cost the square of the copies that a page has.
        leaders: list[int] = []
        for number in bucket:
            if any(forest.root(number) == forest.root(leader) for leader in leaders):
                continue
            own = shingles(texts[number])
            near = [one for one in leaders if jaccard(shingles(texts[one]), own) >= similar]
            for leader in near:
                forest.join(leader, number)
            if not near:
                leaders.append(number)
    return forest


def _sketches(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash values [texts, hashes]; texts without a word have a row of zeros."""
    import rensa

    found = np.zeros((len(texts), HASHES), dtype=np.uint32)
    for number, text in enumerate(texts):
        if members := shingles.__wrapped__(text):  # read once: not worth a place in the cache
            sketch: Any = rensa.RMinHash(num_perm=HASHES, seed=_SEED)
            sketch.update(list(members))
            found[number] = sketch.digest()
    return found


def _buckets(sketches: NDArray[np.uint32]) -> Iterator[list[int]]:
    """Numbers of texts that agree in a whole band, in their order; at least two together."""
    width = HASHES // BANDS
    # Odd multipliers mix a band into one number; two bands that collide cost one comparison.
    mix = np.random.default_rng(_SEED).integers(0, 2**63, width, dtype=np.uint64) * 2 + 1
    told = np.flatnonzero(sketches.any(axis=1))
    for band in range(BANDS):
        part = sketches[told, band * width : (band + 1) * width].astype(np.uint64)
        keys = (part * mix).sum(axis=1, dtype=np.uint64)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for members in np.split(told[order], edges):
            if len(members) > 1:
                yield members.tolist()
