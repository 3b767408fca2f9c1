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
# Share of hashes in common from which on a pair is compared: three standard errors below.
PROMISING = SIMILAR - 3 * (SIMILAR * (1 - SIMILAR) / HASHES) ** 0.5
SHINGLE = 3  # words
_SEED = 42


@functools.lru_cache(maxsize=4_000)
def shingles(text: str) -> frozenset[str]:
    """The runs of three words; of shorter texts, the words together."""
    found = words(text)
    if len(found) < SHINGLE:
        return frozenset([" ".join(found)] if found else [])
    return frozenset(map(" ".join, zip(found, found[1:], found[2:], strict=False)))


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


def joins(texts: Sequence[str], sides: Sequence[object] = ()) -> list[tuple[int, int]]:
    """Pairs of numbers of similar texts, as many as tie every cluster together: a forest.

    With ``sides``, one of each text, only pairs of two sides are looked for: every text that has
    one on another side is in one of them.
    """
    return _grow(texts, sides).joins


def clusters(texts: Sequence[str]) -> list[int]:
    """For each text the number of the first one of its cluster."""
    forest = _grow(texts)
    return [forest.root(number) for number in range(len(texts))]


def _grow(texts: Sequence[str], sides: Sequence[object] = ()) -> _Forest:
    forest = _Forest(len(texts))
    sketches = _sketches(texts)
    names: dict[object, int] = {}
    side = np.array([names.setdefault(name, len(names)) for name in sides])
    for bucket in _buckets(sketches):
        roots = np.array([forest.root(number) for number in bucket])
        if (roots == roots[0]).all() or (sides and (side[bucket] == side[bucket[0]]).all()):
            continue
        here = sketches[bucket]
        for j in range(1, len(bucket)):
            # Exact comparison is for those whose sketches promise something.
            promising = (here[:j] == here[j]).mean(axis=1) >= PROMISING
            if sides:
                promising &= side[bucket[:j]] != side[bucket[j]]
            left = np.flatnonzero(promising)
            while len(left := left[roots[left] != roots[j]]):
                i, left = left[0], left[1:]
                if _similar(texts[bucket[i]], texts[bucket[j]]):
                    forest.join(int(bucket[i]), int(bucket[j]))
                    roots[np.isin(roots, (roots[i], roots[j]))] = forest.root(int(bucket[i]))
    return forest


def _similar(one: str, other: str) -> bool:
    return jaccard(shingles(one), shingles(other)) >= SIMILAR


def _sketches(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash values [texts, hashes]; texts without a word have a row of zeros."""
    found = np.zeros((len(texts), HASHES), dtype=np.uint32)
    for number, text in enumerate(texts):
        found[number] = np.frombuffer(_sketch(text), dtype=np.uint32)
    return found


# A build asks three times: for clusters, of what it derived, and of what it wrote.
@functools.lru_cache(maxsize=200_000)
def _sketch(text: str) -> bytes:
    import rensa

    members = shingles.__wrapped__(text)  # read once: not worth a place in its cache
    if not members:
        return bytes(4 * HASHES)
    sketch: Any = rensa.RMinHash(num_perm=HASHES, seed=_SEED)
    sketch.update(list(members))
    return np.array(sketch.digest(), dtype=np.uint32).tobytes()


def _buckets(sketches: NDArray[np.uint32]) -> Iterator[NDArray[np.intp]]:
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
                yield members
