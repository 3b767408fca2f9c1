"""What annotations are worth: how far people agree, on what, and how good each of them is."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import median
from typing import Any

from curate import bootstrap
from curate.annotate import agreement, annotations
from curate.annotate.adjudicate import Opinion, opinion
from curate.annotate.annotations import Annotation
from curate.annotate.dawid_skene import Estimate, dawid_skene
from curate.annotate.said import Said, is_right
from curate.bootstrap import Interval
from curate.record import Row


@dataclass(frozen=True)
class Annotator:
    """One person's record."""

    annotator: str
    annotations: int
    seconds: float | None  # median lead time
    yes: float | None  # share of sufficient
    compared: int  # rows on which most of the others agree, and ...
    same: int  # ... how often this one says so too
    known: int  # gold rows, and ...
    right: int  # ... how many of them are right, answer and all
    sensitivity: float | None  # by Dawid and Skene: P(says yes | it suffices)
    specificity: float | None  # and P(says no | it does not)


@dataclass(frozen=True)
class Measured:
    """The whole. Coefficients are of rows that several people judged."""

    rows: int
    repeated: int
    label: dict[str, Interval]  # yes, no or bad question
    reasons: dict[str, dict[str, Any]]  # each against the others, where two or more said no
    answers: Interval | None  # pairs of people who found the same answer, of those who found one
    pairs: list[dict[str, Any]]
    annotators: list[Annotator]

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def measure(found: Iterable[Annotation], gold: Mapping[str, Row], seed: int = 13) -> Measured:
    """Measure the annotations that count; intervals are over documents of the rows."""
    counting = annotations.counting(found)
    said = annotations.said_of(counting)
    groups = {one.row.id: one.row.document_id or one.row.id for one in counting}
    judged = labels(said)
    estimate = estimated(said, gold)
    reasons = {
        row: {person: one.reason for person, one in all_.items() if one.reason}
        for row, all_ in said.items()
    }
    named = sorted({reason for all_ in reasons.values() for reason in all_.values()})
    return Measured(
        rows=len(said),
        repeated=len(agreement.repeated(judged)),
        label=agreement.intervals(judged, groups, seed),
        reasons={
            name: _reason(agreement.one_against_rest(reasons, name), groups, seed) for name in named
        },
        answers=_answers(said, groups, seed),
        pairs=[
            {"annotators": [a, b], "rows": count, "cohen_kappa": kappa}
            for a, b, count, kappa in agreement.of_pairs(judged)
        ],
        annotators=[
            _annotator(person, counting, judged, gold, estimate)
            for person in sorted({one.annotator for one in counting})
        ],
    )


def labels(said: Mapping[str, Mapping[str, Said]]) -> dict[str, dict[str, Opinion]]:
    """Yes, no or a bad question, by row and person."""
    return {
        row: {person: opinion(one) for person, one in all_.items()} for row, all_ in said.items()
    }


def estimated(said: Mapping[str, Mapping[str, Said]], gold: Mapping[str, Row]) -> Estimate:
    """Dawid and Skene's view of who is right."""
    yes_no = {
        row: {p: one.sufficient for p, one in all_.items() if one.sufficient is not None}
        for row, all_ in said.items()
    }
    known = {row: bool(gold[row].sufficient) for row in yes_no if row in gold}
    return dawid_skene(yes_no, known)


def _reason(judged: agreement.Judged, groups: Mapping[str, str], seed: int) -> dict[str, Any]:
    given = sum(sum(map(bool, all_.values())) for all_ in judged.values())
    rows = len(agreement.repeated(judged))
    return {"given": given, "rows": rows} | agreement.intervals(judged, groups, seed)


def _answers(
    said: Mapping[str, Mapping[str, Said]], groups: Mapping[str, str], seed: int
) -> Interval | None:
    import numpy as np

    from curate.insufficient.readers import agree

    def same(a: Said, b: Said) -> bool:
        return any(agree(text, [other for other, _ in b.answers]) for text, _ in a.answers)

    pairs = [
        (row, same(a, b))
        for row, all_ in said.items()
        for a, b in combinations(all_.values(), 2)
        if a.answers and b.answers
    ]
    if not pairs:
        return None
    values = np.array([agreed for _, agreed in pairs], dtype=float)
    found = bootstrap.intervals(
        lambda some: {"share": float(values[some].mean())}, [groups[row] for row, _ in pairs], seed
    )
    return found["share"]


def _annotator(
    person: str,
    counting: Sequence[Annotation],
    judged: Mapping[str, Mapping[str, str]],
    gold: Mapping[str, Row],
    estimate: Estimate,
) -> Annotator:
    own = [one for one in counting if one.annotator == person]
    seconds = [one.lead_time for one in own if one.lead_time is not None]
    told = [one.said.sufficient for one in own if one.said.sufficient is not None]
    known = [one for one in own if one.row.id in gold]
    same, compared = agreement.with_others(judged, person)
    return Annotator(
        annotator=person,
        annotations=len(own),
        seconds=median(seconds) if seconds else None,
        yes=sum(told) / len(told) if told else None,
        compared=compared,
        same=same,
        known=len(known),
        right=sum(is_right(one.said, gold[one.row.id]) for one in known),
        sensitivity=estimate.sensitivity.get(person),
        specificity=estimate.specificity.get(person),
    )
