"""What contexts are about: k-means over TF-IDF, each cluster told by its weightiest words."""

import re
import warnings
from collections.abc import Sequence

TOPICS = 12
_TOKEN = re.compile(r"\b[^\W\d]{3,}\b")
_WORDS = 4
_EACH = 5  # contexts a topic, at least


def topics(contexts: Sequence[str]) -> dict[str, int]:
    """Topic, named by four words, → contexts. Empty for fewer contexts than two topics need."""
    import numpy as np
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer

    count = min(TOPICS, len(contexts) // _EACH)
    if count < 2:
        return {}
    vectorizer = TfidfVectorizer(
        stop_words="english",
        max_features=5000,
        max_df=0.5,
        tokenizer=_TOKEN.findall,
        token_pattern=None,
    )
    try:
        vectors = vectorizer.fit_transform(contexts)
    except ValueError:  # nothing but numbers and stop words
        return {}
    names = vectorizer.get_feature_names_out()
    with warnings.catch_warnings():  # fewer distinct contexts than topics: some stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = KMeans(count, n_init=1, max_iter=30, random_state=0).fit(vectors)
    sizes = np.bincount(model.labels_, minlength=count)
    told = [
        " · ".join(names[i] for i in np.argsort(-centre)[:_WORDS])
        for centre in model.cluster_centers_
    ]
    order = np.argsort(-sizes, kind="stable")
    return {told[i]: int(sizes[i]) for i in order if sizes[i]}
