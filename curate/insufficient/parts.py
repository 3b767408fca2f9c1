"""Who makes how many: each neighbourhood its part of what its fold misses of the share."""

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from curate.insufficient import distracted, noise_passages
from curate.insufficient.neighbourhoods import Neighbourhood
from curate.record import Row


def wanted(rows: Iterable[Row], share: float, methods: Sequence[str] = ()) -> int:
    """How many insufficient rows are missing from ``share`` of the labelled rows.

    Where `noise_passages` brings sufficient twins along, they count too: with n methods in turns,
    every n-th row has one.
    """
    labels = [row.sufficient for row in rows if row.sufficient is not None]
    missing: float = round(share * sum(labels) / (1 - share)) - labels.count(False)
    if {noise_passages.METHOD, distracted.METHOD} <= set(methods):
        twins = share / (1 - share) / (len(methods) - 1)
        missing /= max(1 - twins, 0.1)
    return max(0, round(missing))


@dataclass
class Part:
    """A neighbourhood, what is asked of it next, and what it has done."""

    place: Neighbourhood
    quota: int
    turn: int  # of the method that begins
    tried: Counter[str] = field(default_factory=Counter)  # method → parents
    rows: list[Row] = field(default_factory=list)
    exhausted: bool = False

    def went(self, rows: Sequence[Row], tried: Counter[str]) -> None:
        """Note what came of the quota, and that it is done with."""
        self.exhausted = sum(not row.sufficient for row in rows) < self.quota
        self.turn += self.quota
        self.tried += tried
        self.rows += rows


def parts_of(places: Sequence[Neighbourhood], share: float, methods: Sequence[str]) -> list[Part]:
    """Each neighbourhood is asked for its part of what its fold misses, by its parents.

    In whole numbers that add up; the methods' turns go on from one to the next.
    """
    parts = []
    for fold in dict.fromkeys(place.fold for place in places):
        members = [place for place in places if place.fold == fold]
        missing = wanted((row for place in members for row in place.rows), share, methods)
        parents = [sum(row.sufficient is True for row in place.rows) for place in members]
        ends = [missing * end // max(1, sum(parents)) for end in itertools.accumulate(parents)]
        for place, start, end in zip(members, [0, *ends], ends, strict=False):
            parts.append(Part(place, end - start, start))
    return parts


def again(parts: Sequence[Part], missing: Counter[str]) -> list[Part]:
    """Parts that can make more, asked for what others could not make, at most as much again."""
    left, todo = Counter(missing), []
    for part in parts:
        fold = part.place.fold
        if left[fold] > 0 and not part.exhausted:
            part.quota = min(left[fold], max(1, part.quota))
            left[fold] -= part.quota
            todo.append(part)
    return todo
