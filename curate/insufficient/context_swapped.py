"""`context_swapped`: the nearest other passage by BM25 that holds no accepted answer."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.dedup import context_id
from curate.record import Row
from curate.text import holds_any, words

REASON = "irrelevant_context"
# Ranks looked at before giving up: a passage further down is no near miss any more.
_DEPTH = 20


@dataclass(frozen=True)
class PassageIndex:
    """A BM25 index (Robertson et al.; Lucene's variant) over the passages of one fold."""

    contexts: Sequence[str]
    clusters: Sequence[str]
    retriever: Any

    def nearest(self, query: str, count: int) -> list[int]:
        """Numbers of the passages that score highest for ``query``, best first."""
        import numpy as np

        tokens = words(query)
        if not tokens or not self.contexts:
            return []
        scores = self.retriever.get_scores(tokens)
        return [int(number) for number in np.argsort(-scores, kind="stable")[:count]]


def build_index(contexts: Sequence[str]) -> PassageIndex:
    """Index one context of each cluster, none of them empty; their order settles ties."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    by_cluster: dict[str, str] = {}
    for context in dict.fromkeys(contexts):
        by_cluster.setdefault(context_id(context), context)
    by_cluster.pop("", None)  # without a word there is nothing to find
    distinct = list(by_cluster.values())
    retriever = bm25s.BM25(method="lucene")
    if distinct:
        retriever.index([words(context) for context in distinct], show_progress=False)
    return PassageIndex(distinct, list(by_cluster), retriever)


def candidate(row: Row, index: PassageIndex) -> tuple[str, float] | None:
    """Another passage and its intensity, 1 / rank: the nearer the passage, the harder the row."""
    own = context_id(row.context)
    others = [
        index.contexts[number]
        for number in index.nearest(row.question, _DEPTH)
        if index.clusters[number] != own
    ]
    for rank, context in enumerate(others, 1):
        if not holds_any(context, row.answers):
            return context, 1 / rank
    return None
