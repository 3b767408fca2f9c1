"""The passages of a fold, found by BM25: what contexts are swapped with and drowned in."""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from curate.dedup import context_id
from curate.record import Row
from curate.text import words

# Ranks looked at before giving up: a passage further down is no near miss any more.
DEPTH = 20
# Passages searched together. More would find nearer ones, at a cost that grows with the square of
# the rows; whole documents are kept in one shard.
SHARD = 1000


@dataclass(frozen=True)
class _Shard:
    """A BM25 index (Robertson et al.; Lucene's variant) over the passages of some documents."""

    contexts: Sequence[str]
    clusters: Sequence[str]
    documents: Sequence[str]
    retriever: Any

    def nearest(self, query: str, count: int, document: str, where: str) -> list[int]:
        """Numbers of the passages that score highest for ``query``, best first.

        ``where`` is as for `PassageIndex.others`.
        """
        import numpy as np

        tokens = words(query)
        if not tokens or not self.contexts:
            return []
        scores = self.retriever.get_scores(tokens)
        allowed = np.arange(len(scores))
        if where != "any":
            same = np.array([name == document for name in self.documents])
            allowed = np.flatnonzero(same if where == "same_document" else ~same)
        # Ties go to the earlier passage.
        order = allowed[np.argsort(-scores[allowed], kind="stable")]
        return [int(number) for number in order[:count]]


@dataclass(frozen=True)
class PassageIndex:
    """The passages of one fold, searched in the shard of the row's own document."""

    shards: Sequence[_Shard]
    shard_of: Mapping[str, int]  # document → number

    def others(self, row: Row, where: str = "any") -> Iterator[str]:
        """Passages near the row's question that are not its own context, the nearest first.

        ``where``: from ``any`` document, the ``same_document``, or ``other_documents``.
        """
        if not self.shards:
            return
        shard = self.shards[self.shard_of.get(row.document_id, 0)]
        own = row.context_id or context_id(row.context)
        for number in shard.nearest(row.question, DEPTH + 1, row.document_id, where):
            if shard.clusters[number] != own:
                yield shard.contexts[number]


def build_index(passages: Iterable[tuple[str, str, str]]) -> PassageIndex:
    """Index context, document and cluster, one of each cluster; their order settles ties."""
    by_cluster: dict[str, tuple[str, str]] = {}
    for context, document, cluster in dict.fromkeys(passages):
        by_cluster.setdefault(cluster or context_id(context), (context, document))
    by_cluster.pop("", None)  # without a word there is nothing to find
    by_document: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for cluster, (context, document) in by_cluster.items():
        by_document[document].append((context, cluster, document))
    shards: list[list[tuple[str, str, str]]] = []
    shard_of: dict[str, int] = {}
    for document, members in by_document.items():
        if not shards or len(shards[-1]) + len(members) > SHARD:
            shards.append([])
        shards[-1] += members
        shard_of[document] = len(shards) - 1
    return PassageIndex([_index(shard) for shard in shards], shard_of)


def _index(members: Sequence[tuple[str, str, str]]) -> _Shard:
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    contexts, clusters, documents = zip(*members, strict=True)
    retriever = bm25s.BM25(method="lucene")
    retriever.index([words(context) for context in contexts], show_progress=False)
    return _Shard(contexts, clusters, documents, retriever)
