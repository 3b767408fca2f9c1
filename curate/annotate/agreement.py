"""How far people agree who judged the same things."""

from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations

Judged = Mapping[str, Mapping[str, Hashable]]  # thing → person → what they said


@dataclass(frozen=True)
class Agreement:
    """Of things judged more than once: pairs of judgements that agree, and Krippendorff's alpha.

    ``alpha`` is 1 for perfect agreement and 0 for chance (Krippendorff 2004, nominal); None where
    nothing was judged twice, or all said the same, and chance would have it so too.
    """

    things: int
    share: float | None
    alpha: float | None


def agreement(judged: Judged) -> Agreement:
    """Over all people, each thing with as many judgements as it has."""
    several = {thing: said for thing, said in judged.items() if len(said) > 1}
    pairs = [a == b for said in several.values() for a, b in combinations(said.values(), 2)]
    share = sum(pairs) / len(pairs) if pairs else None
    return Agreement(len(several), share, _alpha(several))


def _alpha(judged: Judged) -> float | None:
    import krippendorff
    import numpy as np

    labels = sorted({str(label) for said in judged.values() for label in said.values()})
    people = sorted({person for said in judged.values() for person in said})
    if len(labels) < 2:
        return None
    table = np.full((len(people), len(judged)), np.nan)
    for column, said in enumerate(judged.values()):
        for person, label in said.items():
            table[people.index(person), column] = labels.index(str(label))
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement="nominal"))


def with_others(judged: Judged, person: str) -> tuple[int, int]:
    """How often a person agreed with the majority of the others, and of how many times.

    Things on which the others are alone or divided are left out.
    """
    same = count = 0
    for said in judged.values():
        others = Counter(label for name, label in said.items() if name != person)
        if person not in said or not others:
            continue
        (label, most), *rest = others.most_common(2)
        if rest and rest[0][1] == most:
            continue
        count += 1
        same += said[person] == label
    return same, count
