"""Does anything of one split stand in another, or in a test file that must stay unseen?"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from curate.dedup import context_id
from curate.near_duplicates import SIMILAR, joins
from curate.record import Row
from curate.text import words

# Runs of so many words in common are no chance (Brown et al. 2020 take 13).
NGRAM = 13
WHOLE = 6  # words of a question that is looked for whole


@dataclass(frozen=True)
class Leak:
    """Two rows that must not be in two splits, and what ties them."""

    kind: str  # document, context, parent, near_duplicate, n_gram
    value: str
    first_fold: str
    first_row: str
    second_fold: str
    second_row: str

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def leaks(splits: Mapping[str, Sequence[Row]]) -> list[Leak]:
    """Documents, contexts, parents and near-duplicate contexts that stand in two splits."""
    return [*_shared(splits), *_near_duplicates(splits)]


def _shared(splits: Mapping[str, Sequence[Row]]) -> list[Leak]:
    first: dict[tuple[str, str], tuple[str, str]] = {}
    found = []
    for fold, rows in splits.items():
        for row in rows:
            for kind, value in (
                ("document", row.document_id),
                ("context", row.context_id or context_id(row.context)),
                ("parent", row.parent_id or row.id),
            ):
                home, name = first.setdefault((kind, value), (fold, row.id))
                if value and home != fold:
                    found.append(Leak(kind, value, home, name, fold, row.id))
    return found


def _near_duplicates(splits: Mapping[str, Sequence[Row]]) -> list[Leak]:
    """Contexts that are nearly the same in two splits, whatever their clusters say."""
    holders: dict[str, dict[str, str]] = defaultdict(dict)
    for fold, rows in splits.items():
        for row in rows:
            if row.context:
                holders[row.context].setdefault(fold, row.id)
    contexts, order = sorted(holders), list(splits)
    # A context that is itself in two splits is on a side of its own.
    sides = [next(iter(holders[c])) if len(holders[c]) == 1 else c for c in contexts]
    value = f"similarity of at least {SIMILAR:g}"
    found = []
    for one, other in joins(contexts, sides):
        for pair in itertools.product(*(holders[contexts[n]].items() for n in (one, other))):
            first, second = sorted(pair, key=lambda item: order.index(item[0]))
            if first[0] != second[0]:
                found.append(Leak("near_duplicate", value, *first, *second))
    return found


def against(rows: Iterable[Row], outside: Iterable[Row]) -> list[Leak]:
    """Rows that share a run of `NGRAM` words, or a whole question, with rows of an outside file."""
    known: dict[str, str] = {}
    for row in outside:
        for gram in _grams(row):
            known.setdefault(gram, row.id)
    found = []
    for row in rows:
        shared = next((gram for gram in _grams(row) if gram in known), "")
        if shared:
            found.append(Leak("n_gram", shared, row.fold, row.id, "outside", known[shared]))
    return found


def _grams(row: Row) -> Iterable[str]:
    question, context = words(row.question), words(row.context)
    if len(question) >= WHOLE:  # "When was it built?" is asked of many things
        yield " ".join(question)
    if len(context) < NGRAM:  # too short for a run: the row as a whole
        yield " ".join([*question, "|", *context])
    for start in range(len(context) - NGRAM + 1):
        yield " ".join(context[start : start + NGRAM])
