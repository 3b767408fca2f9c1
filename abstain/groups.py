"""Which rows are not independent of each other: those that go back to one context."""

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence

from curate.dedup import context_id
from curate.record import Row

FEW_DOCUMENTS = 20
# With fewer, leaving one out says little, and leaving contexts out lets a document's others in.
MINIMUM_DOCUMENTS = 5


def context_groups(rows: Sequence[Row]) -> list[str]:
    """For each row, the context that it goes back to.

    A derived row goes back to its parent's context, as far as the parent is among ``rows``: a
    passage without one of its sentences is no second, independent passage. A row that never had a
    context stands for itself.
    """
    by_id = {row.id: row for row in rows if row.id}

    def group(row: Row) -> str:
        seen = {row.id}
        while row.parent_id in by_id and row.parent_id not in seen:  # a file may hold a circle
            row = by_id[row.parent_id]
            seen.add(row.id)
        return row.context_id or context_id(row.context) or row.id

    return [group(row) for row in rows]


def by_context(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by the text of their context, in order of first appearance: as packs are read."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.context].append(row)
    return found


def draw_contexts(rows: Iterable[Row], count: int, seed: int) -> list[list[Row]]:
    """Whole contexts by seed, until they hold at least ``count`` rows."""
    contexts = by_context(rows)
    names = sorted(contexts)
    random.Random(seed).shuffle(names)
    drawn: list[list[Row]] = []
    for name in names:
        if sum(map(len, drawn)) < count:
            drawn.append(contexts[name])
    return drawn


def fold_groups(rows: Sequence[Row]) -> tuple[list[str], bool]:
    """What cross-validation keeps together, and whether these are documents.

    Documents; contexts where there are fewer than `MINIMUM_DOCUMENTS`.
    """
    documents = [row.document_id for row in rows]
    if len(set(documents)) >= MINIMUM_DOCUMENTS:
        return documents, True
    return context_groups(rows), False


def resampling_groups(rows: Sequence[Row]) -> tuple[list[str], str]:
    """What a bootstrap draws: documents, or contexts where there are too few documents."""
    documents = [row.document_id for row in rows]
    if len(set(documents)) >= FEW_DOCUMENTS:
        return documents, "document"
    return context_groups(rows), "context"
