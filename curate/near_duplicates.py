"""Near-duplicate texts: MinHash (Broder 1997) finds candidates, exact Jaccard decides.

Sixteen bands of eight hashes find 95 % of the pairs at a Jaccard similarity of 0.8, and more above
it; `benchmarks/curate.py` holds that against brute force. Memory is 1 KiB a text: a sketch, kept.
"""

import functools
from collections.abc import Iterable, Iterator, Sequence
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

    def tie(self, texts: Sequence[str], one: int, others: Iterable[int]) -> bool:
        """Join a text with those of others that are similar to it; whether there were any."""
        tied = False
        for other in others:
            if self.root(one) != self.root(other):
                if jaccard(shingles(texts[one]), shingles(texts[other])) < SIMILAR:
                    continue
                self.join(other, one)
            tied = True
        return tied


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
        if len({forest.root(number) for number in bucket.tolist()}) == 1:
            continue
        if sides:
            _tie_over_borders(forest, texts, bucket, sketches[bucket], side[bucket])
        else:
            _tie(forest, texts, bucket, sketches[bucket])
    return forest


def _tie(
    forest: _Forest, texts: Sequence[str], bucket: NDArray[np.intp], sketches: NDArray[np.uint32]
) -> None:
    """Join what is similar in one bucket.

    Each is compared with the first of each cluster before it: comparing all with all would cost
    the square of the copies that a page has. Only what is near none of those meets the rest.
    """
    firsts = [0]
    for j in range(1, len(bucket)):
        for some in (np.array(firsts), np.arange(j)):
            near = bucket[some[_promising(sketches[some], sketches[j])]]
            if forest.tie(texts, int(bucket[j]), near.tolist()):
                break
        else:
            firsts.append(j)


def _tie_over_borders(
    forest: _Forest,
    texts: Sequence[str],
    bucket: NDArray[np.intp],
    sketches: NDArray[np.uint32],
    side: NDArray[np.int_],
) -> None:
    """The same where only pairs on two sides count."""
    if (side == side[0]).all():
        return
    for j in range(1, len(bucket)):
        some = np.flatnonzero(side[:j] != side[j])
        near = bucket[some[_promising(sketches[some], sketches[j])]]
        forest.tie(texts, int(bucket[j]), near.tolist())


def _promising(some: NDArray[np.uint32], one: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """Which sketches have so much in common with one that exact comparison is worth its cost."""
    return np.asarray((some == one).mean(axis=1) >= PROMISING)


def _sketches(texts: Sequence[str]) -> NDArray[np.uint32]:
    """MinHash values [texts, hashes]; texts without a word have a row of zeros."""
    found = np.zeros((len(texts), HASHES), dtype=np.uint32)
    for number, text in enumerate(texts):
        found[number] = np.frombuffer(_sketch(text), dtype=np.uint32)
    return found


# A build asks three times: for clusters, of what it derived, and of what it wrote (of more texts
# than are kept, each time anew).
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
