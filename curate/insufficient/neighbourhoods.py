"""Neighbourhoods: parts of a fold that are derived from apart from each other.

A row borrows passages, and needs its own context read, from its neighbourhood alone. Cost and
memory of deriving thus grow with the rows, and not with their square.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from curate.insufficient.passages import Text
from curate.record import FOLDS, Passage, Row

# Contexts searched together. More would find nearer ones, at a cost that grows with their number.
SIZE = 1000


@dataclass
class Neighbourhood:
    """Whole documents of one fold: their rows, and the contexts that these may borrow."""

    fold: str
    rows: list[Row] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)  # in their order


def neighbourhoods(rows: Iterable[Row], passages: Iterable[Passage]) -> list[Neighbourhood]:
    """All of them, in the order of folds; of `SIZE` contexts where documents are smaller."""
    texts: dict[str, dict[str, set[Text]]] = defaultdict(lambda: defaultdict(set))
    members: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        members[row.fold][row.document_id].append(row)
        texts[row.fold][row.document_id].add(_text(row))
    for passage in passages:
        texts[passage.fold][passage.document_id].add(_text(passage))
    found: list[Neighbourhood] = []
    for fold in (fold for fold in FOLDS if fold in texts):
        here = [Neighbourhood(fold)]
        # By their texts, and so in an order that says nothing of where documents come from.
        for document in sorted(texts[fold], key=lambda name: min(texts[fold][name])):
            new = texts[fold][document]
            if here[-1].texts and len(here[-1].texts) + len(new) > SIZE:
                here.append(Neighbourhood(fold))
            here[-1].texts += new
            here[-1].rows += members[fold][document]
        for one in here:
            one.texts.sort()
        found += here
    return found


def _text(item: Row | Passage) -> Text:
    return Text(item.context, item.document_id, item.context_id, item.licence)
