"""How far people agree who judged the same things."""

import warnings
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from curate.bootstrap import Interval

    Codes = NDArray[np.int64]  # [people, things]: the number of what was said, `_NOTHING` if none

Judged = Mapping[str, Mapping[str, Hashable]]  # thing → person → what they said
_NOTHING = -1


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
    several = repeated(judged)
    found = _measures(_codes(several)) if several else {}
    return Agreement(len(several), _known(found.get("share")), _known(found.get("alpha")))


def repeated(judged: Judged) -> Judged:
    """The things that more than one person judged."""
    return {thing: said for thing, said in judged.items() if len(said) > 1}


def intervals(judged: Judged, groups: Mapping[str, str], seed: int = 13) -> dict[str, "Interval"]:
    """Each coefficient with a 95 % interval, by drawing ``groups`` of things with replacement.

    ``share`` and ``alpha`` as in `Agreement`. ``fleiss_kappa`` (Fleiss 1971) is of the things that
    as many people judged as most were; ``cohen_kappa`` (Cohen 1960) the mean over all pairs of
    people with things in common (Light 1971). Kappas compare with chance too; where they differ
    much from alpha, people chose the labels in different shares, or judged different things.
    """
    from curate import bootstrap

    several = repeated(judged)
    if not several:
        return {}
    codes = _codes(several)
    raters = _usual(codes)
    return bootstrap.intervals(
        lambda things: _measures(codes[:, things]) | _kappas(codes[:, things], raters),
        [groups[thing] for thing in several],
        seed,
    )


def of_pairs(judged: Judged) -> list[tuple[str, str, int, float | None]]:
    """Each two people with things in common: how many, and Cohen's kappa."""
    codes, people = _codes(judged), _people(judged)
    found = []
    for a, b in combinations(range(len(people)), 2):
        both = (codes[a] >= 0) & (codes[b] >= 0)
        if both.any():
            kappa = _known(_cohen(codes[a, both], codes[b, both]))
            found.append((people[a], people[b], int(both.sum()), kappa))
    return found


def _people(judged: Judged) -> list[str]:
    return sorted({person for said in judged.values() for person in said})


def _codes(judged: Judged) -> "Codes":
    import numpy as np

    labels = sorted({str(label) for said in judged.values() for label in said.values()})
    number = {label: n for n, label in enumerate(labels)}
    row = {person: n for n, person in enumerate(_people(judged))}
    codes = np.full((len(row), len(judged)), _NOTHING)
    for column, said in enumerate(judged.values()):
        for person, label in said.items():
            codes[row[person], column] = number[str(label)]
    return codes


def _counts(codes: "Codes") -> "Codes":
    """[things, labels]: how many people said each."""
    import numpy as np

    return np.stack([(codes == label).sum(0) for label in range(codes.max(initial=0) + 1)], axis=1)


def _measures(codes: "Codes") -> dict[str, float]:
    import krippendorff

    counts = _counts(codes)
    judgements = counts.sum(1)
    pairs = (judgements * (judgements - 1)).sum()
    share = (counts * (counts - 1)).sum() / pairs if pairs else float("nan")
    alpha = float("nan")
    if (counts.sum(0) > 0).sum() > 1:
        alpha = krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")
    return {"share": float(share), "alpha": float(alpha)}


def _usual(codes: "Codes") -> int:
    """How many people judged most things."""
    import numpy as np

    return int(np.bincount(_counts(codes).sum(1)).argmax())


def _kappas(codes: "Codes", raters: int) -> dict[str, float]:
    """``raters``: of the things that so many judged Fleiss' kappa is."""
    import numpy as np
    from statsmodels.stats.inter_rater import fleiss_kappa

    counts = _counts(codes)
    usual = counts[counts.sum(1) == raters]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # all said the same: 0 / 0, told as NaN
        fleiss = float(fleiss_kappa(usual)) if len(usual) else np.nan
    pairs = []
    for a, b in combinations(codes, 2):
        both = (a >= 0) & (b >= 0)
        if both.any():
            pairs.append(_cohen(a[both], b[both]))
    known = [kappa for kappa in pairs if not np.isnan(kappa)]
    return {"fleiss_kappa": fleiss, "cohen_kappa": float(np.mean(known)) if known else np.nan}


def _cohen(a: "Codes", b: "Codes") -> float:
    """From codes of two people on the same things; NaN where chance alone would agree.

    Not scikit-learn's, which takes 2 ms a call: here are pairs of people times bootstrap draws.
    """
    import numpy as np

    count = max(a.max(initial=0), b.max(initial=0)) + 1
    first, second = np.bincount(a, minlength=count), np.bincount(b, minlength=count)
    by_chance = float(first @ second) / len(a) ** 2
    if by_chance == 1:
        return float("nan")
    return (float((a == b).mean()) - by_chance) / (1 - by_chance)


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else value


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


def one_against_rest(judged: Judged, label: Hashable) -> Judged:
    """Whether each judgement is this label: what the agreement on one label is measured on."""
    return {
        thing: {person: said == label for person, said in all_.items()}
        for thing, all_ in judged.items()
    }
