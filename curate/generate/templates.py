"""Questions about facts by templates, and for each a twin that its context does not answer.

A context states the facts of several subjects, so that the right one has to be found. The twin of
a question is the same question over the same context without the one sentence that answers it; a
cell that is empty in the table gives a question that nobody can answer.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from curate.errors import UserError
from curate.generate.facts import Subject
from curate.generate.phrasing import Phrasing, phrasing
from curate.record import NOT_A_SPAN, Row
from curate.text import find_answer, holds_any

METHOD = "template"


class Column(BaseModel):
    """How the user wants a column said and asked: ``{subject}`` and ``{value}`` are filled in."""

    model_config = ConfigDict(extra="forbid")
    says: str
    asks: list[str] = Field(min_length=1)


class Templates(BaseModel):
    """A file of templates: columns with wordings of their own, and columns to leave out."""

    model_config = ConfigDict(extra="forbid")
    columns: dict[str, Column] = Field(default_factory=dict)
    skip: list[str] = Field(default_factory=list)


@dataclass
class Written:
    """The rows, and the questions that were not asked, by reason."""

    rows: list[Row] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class _Fact:
    subject: str
    column: str
    value: str | None
    sentence: str


def write(
    subjects: Sequence[Subject],
    name: str,
    templates: Templates,
    phrasings: int = 2,
    together: int = 4,
    licence: str = "",
    seed: int = 13,
) -> Written:
    """Rows of all subjects, ``together`` of them in a context, each fact asked in so many ways."""
    columns = _phrasings(subjects, templates)
    draw = random.Random(seed)
    order = list(subjects)
    draw.shuffle(order)
    written = Written()
    for start in range(0, len(order), together):
        group = order[start : start + together]
        facts = [fact for subject in group for fact in _facts(subject, columns)]
        about = {"document_id": f"{name}/{group[0].name}", "source": name, "licence": licence}
        for fact in facts:
            ways = range(len(columns[fact.column].asks))
            for way in draw.sample(ways, min(phrasings, len(ways))):
                question = columns[fact.column].question(way, fact.subject)
                identity = f"{fact.subject}/{fact.column}/{way}"
                for row in _pair(question, fact, facts, columns[fact.column], written):
                    row.source_id = identity if row.sufficient else f"{identity}/twin"
                    for key, value in about.items():
                        setattr(row, key, value)
                    written.rows.append(row.stamped())
    return written


def _phrasings(subjects: Sequence[Subject], templates: Templates) -> dict[str, Phrasing]:
    names = dict.fromkeys(column for subject in subjects for column in subject.facts)
    for column in (*templates.columns, *templates.skip):
        if column not in names:
            raise UserError(f"templates name column '{column}'; there are {', '.join(names)}")
    found: dict[str, Phrasing] = {}
    for column in names:
        if column in templates.skip:
            continue
        told = phrasing(column, (subject.facts.get(column) for subject in subjects))
        own = templates.columns.get(column)
        if own is not None:
            told = Phrasing(told.attribute, "value", own.says, tuple(own.asks), told.verb)
        found[column] = told
    return found


def _facts(subject: Subject, columns: dict[str, Phrasing]) -> Iterator[_Fact]:
    for column, told in columns.items():
        value = subject.facts.get(column)
        sentence = told.statement(subject.name, value) if value is not None else ""
        yield _Fact(subject.name, column, value, sentence)


def _context(facts: Sequence[_Fact]) -> str:
    """The facts as text, a paragraph a subject."""
    paragraphs: dict[str, list[str]] = {}
    for fact in facts:
        if fact.sentence:
            paragraphs.setdefault(fact.subject, []).append(fact.sentence)
    return "\n".join(" ".join(sentences) for sentences in paragraphs.values())


def _pair(
    question: str, fact: _Fact, facts: Sequence[_Fact], told: Phrasing, written: Written
) -> Iterator[Row]:
    """The question with its answer and its twin; of an empty cell the twin alone."""
    without = _context([one for one in facts if one is not fact])
    twin = Row(
        question=question,
        context=without,
        sufficient=False,
        reason="evidence_missing",
        method=METHOD,
    )
    if fact.value is None:
        if without:
            yield twin
        else:
            written.left_out["no other fact to make a context of"] += 1
        return
    context = _context(facts)
    place = context.index(fact.sentence)
    end = place + len(fact.sentence)
    answers = [fact.value.casefold()] if told.kind == "property" else [fact.value]
    is_span = told.kind != "property"
    start = find_answer(context, fact.value, place, end) if is_span else NOT_A_SPAN
    yield Row(
        question=question,
        context=context,
        answers=answers,
        answer_starts=[start],
        evidence=[(place, end)],
        sufficient=True,
        method=METHOD,
    )
    if not without:
        written.left_out["no other fact to make a context of"] += 1
    elif is_span and holds_any(_sentences_of(fact, facts), [fact.value]):
        # "Its floor area and its ceiling are both 12": a reader could not be blamed.
        written.left_out["another fact of the subject has the same value"] += 1
    else:
        yield twin


def _sentences_of(fact: _Fact, facts: Sequence[_Fact]) -> str:
    return " ".join(
        one.sentence for one in facts if one.subject == fact.subject and one is not fact
    )


def example(subjects: Sequence[Subject], templates: Templates) -> list[tuple[str, str, str]]:
    """For each column its kind, a sentence and a question, to look at before anything is made."""
    lines = []
    for column, told in _phrasings(subjects, templates).items():
        known = next((s for s in subjects if s.facts.get(column) is not None), None)
        if known is not None:
            sentence = told.statement(known.name, known.facts[column] or "")
            lines.append((f"{column} ({told.kind})", sentence, told.question(0, known.name)))
    return lines
