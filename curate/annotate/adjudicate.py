"""One label for each row from what several people say of it; whoever dissents is not forgotten."""

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from curate.annotate.said import Said, Span
from curate.record import REASONS, Dropped, Row, digest
from curate.text import normalise

SaidOf = Mapping[str, Mapping[str, Said]]  # row's id → person → what they say
NO_SENSE = "question_makes_no_sense"
BAD: Literal["bad question"] = "bad question"
Opinion = Literal["yes", "no", "bad question"]


@dataclass
class Adjudicated:
    """The rows, those left out, and how many are as they were, changed, and undecided."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def pseudonym(person: str) -> str:
    """A person in data that others may see: who it is cannot be told from it alone."""
    return digest("worker", person)[:10]


def adjudicate(
    rows: Mapping[str, Row],
    said: SaidOf,
    step: str,
    weighed: Mapping[str, float] | None = None,
    decided: SaidOf | None = None,
) -> Adjudicated:
    """Each row with the label of the majority; where there is none, with no label.

    ``weighed`` is the probability that a row's context suffices, by a model of the people (Dawid
    and Skene's); it stands in for counting heads. ``decided`` is what a second pass says; of its
    rows nobody else decides. What each person said stays with the row as a vote. A row that most
    find senseless is dropped; one that nobody judged stays as it is.
    """
    found = Adjudicated()
    for row in rows.values():
        everyone = {**said.get(row.id, {}), **(decided or {}).get(row.id, {})}
        deciding = (decided or {}).get(row.id) or everyone
        most = majority(deciding.values())
        if most == BAD:
            detail = "; ".join(one.comment for one in deciding.values() if one.comment)
            found.dropped.append(Dropped(_with_votes(row, everyone), step, NO_SENSE, detail))
            continue
        probability = None if deciding is not everyone else (weighed or {}).get(row.id)
        judged = _judged(row, list(deciding.values()), most, probability) if deciding else row
        judged = _with_votes(judged, everyone)
        found.counts[_what_became(row, judged, bool(everyone))] += 1
        found.rows.append(judged)
    return found


def disputed(said: Mapping[str, Said]) -> bool:
    """Whether those who judged a row differ: on its label, its sense, or its answer."""
    from curate.insufficient.readers import agree

    if len({(one.sufficient, one.bad) for one in said.values()}) > 1:
        return True
    given = [[text for text, _ in one.answers] for one in said.values() if one.answers]
    return any(not any(agree(text, given[0]) for text in texts) for texts in given[1:])


def _what_became(before: Row, after: Row, asked: bool) -> str:
    if not asked:
        return "not judged"
    if after.sufficient is None:
        return "undecided"
    if before.sufficient is None:
        return "labelled"
    if before.sufficient != after.sufficient:
        return "changed"
    return "confirmed" if before.content_hash == after.content_hash else "corrected"


def _with_votes(row: Row, said: Mapping[str, Said]) -> Row:
    votes = {
        f"worker:{pseudonym(person)}": float(one.sufficient)
        for person, one in said.items()
        if one.sufficient is not None
    }
    return dataclasses.replace(row, votes=row.votes | votes)


def opinion(said: Said) -> Opinion:
    """What one person says of a row, in a word."""
    if said.bad or said.sufficient is None:
        return BAD
    return "yes" if said.sufficient else "no"


def majority(said: Iterable[Said]) -> Opinion | None:
    """What more people say than anything else; None where they are divided."""
    counts = Counter(map(opinion, said)).most_common(2)
    if not counts or (len(counts) > 1 and counts[0][1] == counts[1][1]):
        return None
    return counts[0][0]


def _judged(row: Row, said: Sequence[Said], most: Opinion | None, probability: float | None) -> Row:
    yes = [one for one in said if opinion(one) == "yes"]
    no = [one for one in said if opinion(one) == "no"]
    if probability is None:
        sufficient = None if most is None else most == "yes"
    else:
        sufficient = None if probability == 0.5 else probability > 0.5
    answers = _answers(yes)
    if sufficient and row.sufficient:  # what was accepted before stays so, behind theirs
        known = {normalise(text) for text, _ in answers}
        before = zip(row.answers, row.answer_starts, strict=True)
        answers += [(text, start) for text, start in before if normalise(text) not in known]
    if sufficient and not answers:
        sufficient = None  # they say that it answers, and nobody says what
    reason = ""
    if sufficient is False:
        reasons = Counter(one.reason for one in no if one.reason in REASONS)
        given = reasons.most_common(1)[0][0] if reasons else ""
        reason = given or (row.sufficient is False and row.reason) or "unlabelled"
    if not sufficient:
        answers = []
    return dataclasses.replace(
        row,
        sufficient=sufficient,
        reason=reason,
        answers=[text for text, _ in answers],
        answer_starts=[start for _, start in answers],
        evidence=row.evidence if sufficient else [],
    ).stamped()


def _answers(yes: Sequence[Said]) -> list[Span]:
    """The answers given, each once; first the one that most gave."""
    spans: dict[str, Span] = {}
    counts: Counter[str] = Counter()
    for one in yes:
        for text, start in dict.fromkeys(one.answers):
            spans.setdefault(normalise(text), (text, start))
            counts[normalise(text)] += 1
    return [spans[name] for name, _ in counts.most_common()]
