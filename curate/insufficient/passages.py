"""The passages of a fold, found by BM25: what contexts are swapped with and drowned in."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.dedup import context_id
from curate.record import Row
from curate.text import words

# Ranks looked at before giving up: a passage further down is no near miss any more.
DEPTH = 20


@dataclass(frozen=True)
class PassageIndex:
    """A BM25 index (Robertson et al.; Lucene's variant) over the passages of one fold."""

    contexts: Sequence[str]
    clusters: Sequence[str]
    documents: Sequence[str]
    retriever: Any

    def nearest(self, query: str, count: int) -> list[int]:
        """Numbers of the passages that score highest for ``query``, best first."""
        import numpy as np

        tokens = words(query)
        if not tokens or not self.contexts:
            return []
        scores = self.retriever.get_scores(tokens)
        count = min(count, len(scores))
        # Ties go to the earlier passage, as a stable sort of all of them would have it.
        best = np.argpartition(-scores, count - 1)[:count]
        edge = scores[best].min()
        candidates = np.flatnonzero(scores >= edge)
        order = candidates[np.argsort(-scores[candidates], kind="stable")]
        return [int(number) for number in order[:count]]

    def others(self, row: Row, where: str = "any", query: str | None = None) -> Iterator[str]:
        """Passages near the row's question that are not its own context, the nearest first.

        ``where``: from ``any`` document, the ``same_document``, or ``other_documents``.
        """
        own = row.context_id or context_id(row.context)
        for number in self.nearest(query or row.question, DEPTH + 1):
            same = self.documents[number] == row.document_id
            if self.clusters[number] == own or (where == "same_document" and not same):
                continue
            if where == "other_documents" and same:
                continue
            yield self.contexts[number]


def build_index(passages: Sequence[tuple[str, str, str]]) -> PassageIndex:
    """Index context, document and cluster, one of each cluster; their order settles ties."""
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    by_cluster: dict[str, tuple[str, str]] = {}
    for context, document, cluster in dict.fromkeys(passages):
        by_cluster.setdefault(cluster or context_id(context), (context, document))
    by_cluster.pop("", None)  # without a word there is nothing to find
    contexts = [context for context, _ in by_cluster.values()]
    documents = [document for _, document in by_cluster.values()]
    retriever = bm25s.BM25(method="lucene")
    if contexts:
        retriever.index([words(context) for context in contexts], show_progress=False)
    return PassageIndex(contexts, list(by_cluster), documents, retriever)
