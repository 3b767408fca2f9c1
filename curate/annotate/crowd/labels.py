"""Rows with the label that most workers gave them."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from curate.annotate.crowd.results import Assignment
from curate.generate.checks import span_of
from curate.record import NOT_A_SPAN, REASONS, Dropped, Row
from curate.text import normalise

STEP = "crowd"


@dataclass
class Labelled:
    """The rows, those left out, and how many are as they were, changed, and undecided."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def label(rows: Mapping[str, Row], assignments: Sequence[Assignment]) -> Labelled:
    """Each row with the label of the majority; where there is none, with no label.

    What each worker said stays with the row as a vote. A row that most find senseless is dropped;
    one that nobody judged stays as it is.
    """
    by_task: dict[str, list[Assignment]] = defaultdict(list)
    for assignment in assignments:
        by_task[assignment.task].append(assignment)
    found = Labelled()
    for row in rows.values():
        said = by_task.get(row.id, [])
        bad = sum("bad" in one.answers for one in said)
        if 2 * bad > len(said):
            detail = "; ".join(one.answers.get("comment", "") for one in said).strip("; ")
            found.dropped.append(Dropped(row, STEP, "question_makes_no_sense", detail))
            continue
        judged = _judged(row, said) if said else row
        found.counts[_what_became(row, judged, bool(said))] += 1
        found.rows.append(judged)
    return found


def _what_became(before: Row, after: Row, asked: bool) -> str:
    if not asked:
        return "not judged"
    if after.sufficient is None:
        return "undecided"
    same = before.sufficient == after.sufficient
    return "confirmed" if same else "labelled" if before.sufficient is None else "changed"


def _judged(row: Row, said: Sequence[Assignment]) -> Row:
    yes = [one for one in said if one.answers.get("sufficient") == "yes"]
    no = [one for one in said if one.answers.get("sufficient") == "no"]
    votes = {f"worker:{one.pseudonym}": float(one in yes) for one in (*yes, *no)}
    answers = _answers(row.context, yes)
    sufficient = None if len(yes) == len(no) else len(yes) > len(no)
    if sufficient and not answers:
        sufficient = None  # they say that it answers, and nobody says what
    reason = ""
    if sufficient is False:
        given = [one.answers.get("reason", "") for one in no]
        reasons = Counter(name for name in given if name in REASONS)
        reason = reasons.most_common(1)[0][0] if reasons else "unlabelled"
    if not sufficient:
        answers = []
    elif row.sufficient and row.answers:  # what was accepted before stays so, behind theirs
        known = {normalise(text) for text, _ in answers}
        before = zip(row.answers, row.answer_starts, strict=True)
        answers += [(text, start) for text, start in before if normalise(text) not in known]
    return dataclasses.replace(
        row,
        sufficient=sufficient,
        reason=reason,
        answers=[text for text, _ in answers],
        answer_starts=[start for _, start in answers],
        votes=row.votes | votes,
        evidence=row.evidence if sufficient else [],
    ).stamped()


def _answers(context: str, yes: Sequence[Assignment]) -> list[tuple[str, int]]:
    """The answers given, as the passage writes them; first the one that most gave."""
    spans: dict[str, tuple[str, int]] = {}
    counts: Counter[str] = Counter()
    for one in yes:
        text = one.answers.get("answer", "")
        if text:
            span = span_of(context, text) or (text, NOT_A_SPAN)
            spans.setdefault(normalise(span[0]), span)
            counts[normalise(span[0])] += 1
    return [spans[name] for name, _ in counts.most_common()]
