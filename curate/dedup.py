"""Deduplication that knows labels. It must see every row: no batch can do it alone.

Contexts that are nearly the same form a cluster, and no split divides one. Rows are equal where
history, question and context have the same words. Rows are nearly so where the contexts are of one
cluster, the questions have the same words but small ones, in any order and inflection, and label
and answers agree. What only looks alike is kept: the same question with another label, or a
question edited in the one word that matters, is what teaches a model to read.
"""

import dataclasses
import functools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from curate import near_duplicates
from curate.record import Dropped, Passage, Row, digest
from curate.text import asking_word, content_words, normalise, words
from curate.variants import canonical

STEP = "dedup"


@functools.lru_cache(maxsize=5_000)
def context_id(context: str) -> str:
    """The name of a context, and of its cluster where it is the first: a hash of its words."""
    found = words(context)
    return digest(*found) if found else ""


def context_clusters(rows: Iterable[Row], passages: Iterable[Passage] = ()) -> dict[str, str]:
    """The cluster of each of their contexts: the name of the first of its near-duplicates."""
    contexts = {row.context for row in rows} | {passage.context for passage in passages}
    distinct = sorted(context for context in contexts if context_id(context))
    firsts = near_duplicates.clusters(distinct)
    return {
        context: context_id(distinct[first])
        for context, first in zip(distinct, firsts, strict=True)
    }


Key = tuple[str, str, str]
# Beyond its words, these tell a question apart: "C#" is not "C++", nor "3 < 4" what "3 > 4" is.
_TELLING = re.compile(r"[+#%$€£¥<>=×÷−*/^&@°]")


def key(row: Row) -> Key:
    """What equal rows have in common: the words of history and question, and the context."""
    history = " ".join(turn["content"] for turn in row.history)
    question = [*words(row.question), *_TELLING.findall(row.question)]
    return " ".join(words(history)), " ".join(question), context_id(row.context)


def dedup(
    rows: list[Row],
    clusters: Mapping[str, str] | None = None,
    known: Mapping[str, str] | None = None,
) -> tuple[list[Row], list[Dropped]]:
    """Give contexts their clusters; keep the first of equal rows and none of a contradiction.

    Where equal rows disagree on the label, no one can tell which is right, and all of them are
    dropped. ``clusters``: of these and other contexts, from `context_clusters`. ``known``: folds
    of documents from earlier builds; rows once tested on come first, so that they stay.
    """
    if clusters is None:
        clusters = context_clusters(rows)
    folds = known or {}
    rows = sorted(rows, key=lambda row: folds.get(row.document_id, "train") in ("train", "stream"))
    same: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        clustered = dataclasses.replace(row, context_id=clusters.get(row.context, ""))
        same[key(clustered)].append(clustered)
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for group in same.values():
        if len({row.sufficient for row in group}) > 1:
            detail = "the same question and context as " + ", ".join(row.id for row in group)
            dropped += [Dropped(row, STEP, "contradictory_labels", detail) for row in group]
            continue
        kept.append(group[0])
        detail = f"same as {group[0].id}"
        dropped += [Dropped(row, STEP, "exact_duplicate", detail) for row in group[1:]]
    kept, near = _without_near_duplicates(kept)
    return kept, dropped + near


def _without_near_duplicates(rows: list[Row]) -> tuple[list[Row], list[Dropped]]:
    """The first of rows that ask the same in nearly the same words, and are labelled alike."""
    first: dict[tuple[Any, ...], Row] = {}
    dropped = []
    for row in rows:
        content = content_words(row.question)
        in_order = " ".join(word for word in words(row.question) if word in content)
        stems = tuple(sorted(canonical(in_order)))
        telling = tuple(_TELLING.findall(row.question))
        history = " ".join(turn["content"] for turn in row.history)
        answers = tuple(sorted(normalise(answer) for answer in row.answers))
        asked = (asking_word(row.question), bool(_NEGATION.search(row.question)), stems, telling)
        place = (history, row.context_id, row.sufficient, answers)
        same = first.setdefault((*asked, *place), row)
        if same is not row:
            dropped.append(Dropped(row, STEP, "near_duplicate", f"nearly the same as {same.id}"))
    gone = {id(one.row) for one in dropped}
    return [row for row in rows if id(row) not in gone], dropped


_NEGATION = re.compile(r"\b(?:not|never|no|without|except)\b|n['’]t\b", re.IGNORECASE)


def dedup_passages(
    passages: list[Passage], clusters: Mapping[str, str] | None = None
) -> list[Passage]:
    """The first passage of each cluster, with its cluster."""
    if clusters is None:
        clusters = context_clusters([], passages)
    first: dict[str, Passage] = {}
    for passage in passages:
        cluster = clusters.get(passage.context, "")
        first.setdefault(cluster, dataclasses.replace(passage, context_id=cluster))
    return list(first.values())
