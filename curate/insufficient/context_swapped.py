"""`context_swapped`: the nearest other passage by BM25 that holds no accepted answer."""

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.record import Row
from curate.text import holds_any, words

REASON = "irrelevant_context"
# Ranks looked at before giving up: a passage further down is no near miss any more.
_DEPTH = 20


@dataclass(frozen=True)
class PassageIndex:
    """A BM25 index (Robertson et al.; Lucene's variant) over the passages of one fold."""

    contexts: Sequence[str]
    retriever: Any

    def nearest(self, query: str, count: int) -> list[int]:
        """Numbers of the passages that score highest for ``query``, best first."""
        tokens = words(query)
        if not tokens or not self.contexts:
            return []
        found, _ = self.retriever.retrieve(
            [tokens], k=min(count, len(self.contexts)), show_progress=False
        )
        return [int(number) for number in found[0]]


def build_index(contexts: Sequence[str]) -> PassageIndex:
    """Index distinct, non-empty contexts; their order settles ties."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    distinct = [context for context in dict.fromkeys(contexts) if words(context)]
    retriever = bm25s.BM25(method="lucene")
    with contextlib.suppress(ValueError):  # raised for an empty corpus, which finds nothing
        retriever.index([words(context) for context in distinct], show_progress=False)
    return PassageIndex(distinct, retriever)


def candidate(row: Row, index: PassageIndex) -> tuple[str, float] | None:
    """Another passage and its intensity, 1 / rank: the nearer the passage, the harder the row."""
    others = [
        index.contexts[number]
        for number in index.nearest(row.question, _DEPTH)
        if index.contexts[number] != row.context
    ]
    for rank, context in enumerate(others, 1):
        if not holds_any(context, row.answers):
            return context, 1 / rank
    return None
