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

from curate.bootstrap import Interval, intervals
from curate.record import Row
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
    labels = labels_of(rows)
    groups = _groups(rows)
    if labels.all() or not labels.any() or len(set(groups)) < 2:
        return []
    return [_measure(name, rows, labels, groups) for name in FEATURES]


def labels_of(rows: Sequence[Row]) -> NDArray[np.bool_]:
    """Whether each row is labelled sufficient."""
    return np.array([bool(row.sufficient) for row in rows], dtype=bool)


def _groups(rows: Sequence[Row]) -> list[str]:
    documents = [row.document_id for row in rows]
    return documents if len(set(documents)) >= FOLDS else [row.context_id or row.id for row in rows]


def unseen_scores(name: str, rows: Sequence[Row]) -> NDArray[np.float64]:
    """Log-odds of "sufficient" [rows], each from a fit without the row's document."""
    from sklearn.model_selection import GroupKFold

    labels, groups = labels_of(rows), _groups(rows)
    scores = np.zeros(len(rows))
    folds = GroupKFold(min(FOLDS, len(set(groups))))
    for train, test in folds.split(scores, groups=groups):
        if len(set(labels[train])) == 2:
            model = _model(name).fit([rows[i] for i in train], labels[train])
            scores[test] = model.decision_function([rows[i] for i in test])
    return scores


def _measure(name: str, rows: Sequence[Row], labels: NDArray[Any], groups: list[str]) -> Shortcut:
    from sklearn.metrics import roc_auc_score

    scores = unseen_scores(name, rows)

    def area(some: NDArray[np.int64]) -> dict[str, float]:
        both = len(set(labels[some])) == 2
        return {"auroc": float(roc_auc_score(labels[some], scores[some])) if both else np.nan}

    whole = _model(name).fit(list(rows), labels)
    return Shortcut(name, intervals(area, groups)["auroc"], _telltales(whole))


def _model(name: str) -> Any:
    from sklearn.feature_extraction import DictVectorizer
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, MaxAbsScaler

    vectors: Any = DictVectorizer()
    if name != "overlap alone":
        vectors = TfidfVectorizer(
            ngram_range=(1, 2),
            min_df=3,
            sublinear_tf=True,
            tokenizer=_TOKEN.findall,
            token_pattern=None,
        )
    return make_pipeline(
        FunctionTransformer(_READERS[name]),
        vectors,
        MaxAbsScaler(),
        LogisticRegression(max_iter=1000),
    )


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
        "passages": float(row.context.count("\n\n") + bool(row.context)),
    }


_READERS = {
    "question alone": _questions,
    "context alone": _contexts,
    "overlap alone": _overlaps,
}


def _telltales(model: Any) -> list[tuple[str, float]]:
    """The features of the greatest weights, those that speak for "sufficient" positive."""
    names, weights = model[1].get_feature_names_out(), model[-1].coef_[0]
    order = np.argsort(-np.abs(weights))[:TELLTALES]
    return [(str(names[i]), round(float(weights[i]), 3)) for i in order]
