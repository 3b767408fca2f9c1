"""Can the label be told without reading the context against the question?

A model trained on such rows learns the tell-tale and not the skill (Gururangan et al. 2018; for
unanswerable questions, Sen and Saffari 2020). Three classifiers that must not do well: one sees the
question alone, one the context alone, one only how far the two overlap.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.auroc import auroc
from curate.bootstrap import Interval, intervals
from curate.record import BETWEEN_PASSAGES, Row
from curate.text import content_words, words

FOLDS = 5
_TOKEN = re.compile(r"\b\w+(?:'\w+)?")
TELLTALES = 8
FEATURES = ("question alone", "context alone", "overlap alone")


@dataclass(frozen=True)
class Shortcut:
    """What one set of features tells of the label on rows that it was not fitted on."""

    features: str
    auroc: Interval  # 0.5 is chance
    telltales: list[tuple[str, float]]  # what speaks for "sufficient" (+) or against it (−)

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def shortcuts(rows: Sequence[Row]) -> list[Shortcut]:
    """The three classifiers' worth on labelled ``rows``, documents kept together.

    Empty where the rows hold one label, or go back to a single document and context.
    """
    rows = auditable(rows)
    labels = labels_of(rows)
    groups = groups_of(rows)
    if labels.all() or not labels.any() or len(set(groups)) < 2:
        return []
    return [_measure(name, rows, labels, groups) for name in FEATURES]


def auditable(rows: Sequence[Row]) -> list[Row]:
    """Rows whose label hangs on question and context together.

    That an empty context does not answer, and that "Who was that?" has no answer, is rightly told
    by one of them alone.
    """
    return [row for row in rows if row.context and row.reason != "underspecified"]


def labels_of(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Whether each row is labelled sufficient."""
    return np.array([bool(row.sufficient) for row in rows], dtype=bool)


def groups_of(rows: Sequence[Row]) -> list[str]:
    """What cross-validation keeps together: documents, or contexts where these are few."""
    documents = [row.document_id for row in rows]
    return documents if len(set(documents)) >= FOLDS else [row.context_id or row.id for row in rows]


def unseen_scores(name: str, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Log-odds of "sufficient" [rows], each from a fit without the row's document."""
    return _scores(_features(name, rows)[0], labels_of(rows), groups_of(rows))


def _scores(features: Any, labels: NDArray[np.bool_], groups: Sequence[str]) -> NDArray[np.float64]:
    from sklearn.model_selection import GroupKFold

    scores = np.zeros(len(labels))
    folds = GroupKFold(min(FOLDS, len(set(groups))))
    for train, test in folds.split(scores, groups=groups):
        if len(set(labels[train])) == 2:
            model = _classifier().fit(features[train], labels[train])
            scores[test] = model.decision_function(features[test])
    return scores


def _measure(
    name: str, rows: Sequence[Row], labels: NDArray[np.bool_], groups: Sequence[str]
) -> Shortcut:
    features, names = _features(name, rows)
    scores = _scores(features, labels, groups)
    found = intervals(lambda some: {"auroc": auroc(scores[some], labels[some])}, groups)
    weights = _classifier().fit(features, labels).coef_[0]
    order = np.argsort(-np.abs(weights))[:TELLTALES]
    telltales = [(str(names[i]), round(float(weights[i]), 3)) for i in order]
    return Shortcut(name, found["auroc"], telltales)


def _features(name: str, rows: Sequence[Row]) -> tuple[Any, Sequence[str]]:
    """A sparse matrix [rows, features] and the features' names; no label is looked at."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import MaxAbsScaler

    vectors: Any = DictVectorizer()
    if name != "overlap alone":
        vectors = TfidfVectorizer(
            ngram_range=(1, 2),
            min_df=3 if len(rows) >= 100 else 1,
            sublinear_tf=True,
            tokenizer=_TOKEN.findall,
            token_pattern=None,
        )
    try:
        matrix = vectors.fit_transform(_READERS[name](rows))
    except ValueError:  # not one word in them that could tell anything
        return csr_matrix((len(rows), 1)), ["(nothing)"]
    return MaxAbsScaler().fit_transform(matrix), vectors.get_feature_names_out()


def _classifier() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000)


def _questions(rows: Sequence[Row]) -> list[str]:
    return [row.question for row in rows]


def _contexts(rows: Sequence[Row]) -> list[str]:
    return [row.context for row in rows]


def _overlaps(rows: Sequence[Row]) -> list[dict[str, float]]:
    return [_overlap(row) for row in rows]


def _overlap(row: Row) -> dict[str, float]:
    """How far question and context share their words, and how long each is."""
    asked, told = content_words(row.question), set(words(row.context))
    return {
        "share of the question's words in the context": len(asked & told) / max(1, len(asked)),
        "words of the question not in the context": float(len(asked - told)),
        "log length of the context": float(np.log1p(len(row.context))),
        "length of the question": float(len(row.question)),
        "passages": float(row.context.count(BETWEEN_PASSAGES) + bool(row.context)),
    }


_READERS = {
    "question alone": _questions,
    "context alone": _contexts,
    "overlap alone": _overlaps,
}
