"""The passages around some rows, found by BM25: what contexts are swapped with and drowned in."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from curate.dedup import context_id
from curate.record import Row
from curate.text import words

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Ranks looked at before giving up: a passage further down is no near miss any more.
DEPTH = 20


@dataclass(frozen=True)
class PassageIndex:
    """A BM25 index (Robertson et al.; Lucene's variant) over one passage of each cluster."""

    contexts: Sequence[str]
    clusters: Sequence[str]
    documents: Sequence[str]
    licences: Mapping[str, str]  # of each context
    retriever: Any

    def others(self, row: Row, where: str = "any") -> Iterator[str]:
        """Passages near the row's question that are not its own context, the nearest first.

        ``where``: from ``any`` document, the ``same_document``, or ``other_documents``.
        """
        own = row.context_id or context_id(row.context)
        for number in self._nearest(row.question, DEPTH + 1, row.document_id, where):
            if self.clusters[number] != own:
                yield self.contexts[number]

    def _nearest(self, query: str, count: int, document: str, where: str) -> list[int]:
        """Numbers of the passages that score highest for ``query``, best first."""
        import numpy as np

        tokens = words(query)
        if not tokens or not self.contexts:
            return []
        scores = self.retriever.get_scores(tokens)
        allowed: NDArray[np.signedinteger[Any]] = np.arange(len(scores))
        if where != "any":
            same = np.array([name == document for name in self.documents])
            allowed = np.flatnonzero(same if where == "same_document" else ~same)
        # Ties go to the earlier passage.
        order = allowed[np.argsort(-scores[allowed], kind="stable")]
        return [int(number) for number in order[:count]]


class Text(NamedTuple):
    """A context that may be borrowed."""

    context: str
    document: str
    cluster: str = ""
    licence: str = ""


def build_index(passages: Iterable[Text]) -> PassageIndex:
    """Index texts, one of each cluster; their order settles ties."""
    by_cluster: dict[str, Text] = {}
    for text in passages:
        by_cluster.setdefault(text.cluster or context_id(text.context), text)
    by_cluster.pop("", None)  # without a word there is nothing to find
    texts = list(by_cluster.values())
    contexts = [text.context for text in texts]
    documents = [text.document for text in texts]
    licences = {text.context: text.licence for text in texts}
    return PassageIndex(contexts, list(by_cluster), documents, licences, _retriever(contexts))


def _retriever(contexts: Sequence[str]) -> Any:
    if not contexts:
        return None
    import bm25s

    logging.getLogger("bm25s").setLevel(logging.WARNING)
    retriever = bm25s.BM25(method="lucene")
    retriever.index([words(context) for context in contexts], show_progress=False)
    return retriever
