"""Deduplication that knows labels. It must see every row: no batch can do it alone.

Contexts that are nearly the same form a cluster, and no split divides one. Rows are merged where
history and question have the same words and the context is of the same cluster; or where the
question has the same words but small ones, in any order and inflection, and label and answers
agree. What only looks alike is kept: the same question with another label, or a question edited in
the one word that matters, is what teaches a model to read.
"""

import dataclasses
import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from curate import near_duplicates
from curate.record import Dropped, Passage, Row, digest
from curate.text import content_words, normalise, words
from curate.variants import canonical

STEP = "dedup"


def context_id(context: str) -> str:
    """The cluster of a context: the same words in the same order are the same context."""
    found = words(context)
    return digest(*found) if found else ""


def context_clusters(contexts: Iterable[str]) -> dict[str, str]:
    """The cluster of each context: that of the first of its near-duplicates."""
    distinct = sorted({context for context in contexts if context_id(context)})
    firsts = near_duplicates.clusters(distinct)
    found = {
        context: context_id(distinct[first])
        for context, first in zip(distinct, firsts, strict=True)
    }
    return defaultdict(str, found)


Key = tuple[str, str, str]
# Beyond its words, these tell a question apart: "C#" is not "C++", nor "3 < 4" what "3 > 4" is.
_TELLING = re.compile(r"[+#%$€£¥<>=×÷−*/^&@°]")


def key(row: Row) -> Key:
    """What equal rows have in common: the words of history and question, and the context."""
    history = " ".join(turn["content"] for turn in row.history)
    question = [*words(row.question), *_TELLING.findall(row.question)]
    return " ".join(words(history)), " ".join(question), row.context_id


def dedup(rows: list[Row]) -> tuple[list[Row], list[Dropped]]:
    """Give contexts their clusters; keep the first of equal rows and none of a contradiction.

    Rows are equal when history, question and context have the same words. Where equal rows
    disagree on the label, no one can tell which is right, and all of them are dropped.
    """
    clusters = context_clusters(row.context for row in rows)
    same: dict[Key, list[Row]] = defaultdict(list)
    for row in rows:
        clustered = dataclasses.replace(row, context_id=clusters[row.context])
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
        stems = tuple(sorted(canonical(" ".join(content_words(row.question)))))
        telling = tuple(_TELLING.findall(row.question))
        history = " ".join(turn["content"] for turn in row.history)
        answers = tuple(sorted(normalise(answer) for answer in row.answers))
        asked = (_asked(row.question), stems, telling, history, row.context_id)
        same = first.setdefault((*asked, row.sufficient, answers), row)
        if same is not row:
            dropped.append(Dropped(row, STEP, "near_duplicate", f"nearly the same as {same.id}"))
    gone = {id(one.row) for one in dropped}
    return [row for row in rows if id(row) not in gone], dropped


_ASKING = re.compile(r"\b(?:who|whom|whose|what|which|when|where|why|how)\b")
_NEGATION = re.compile(r"\b(?:not|never|no|without|except)\b|n['’]t\b")


def _asked(question: str) -> tuple[str, bool]:
    """What kind of thing is asked for, and whether it is negated."""
    question = question.casefold()
    found = _ASKING.search(question)
    return found.group() if found else "", bool(_NEGATION.search(question))


def dedup_passages(passages: list[Passage]) -> list[Passage]:
    """The first passage of each cluster, with its cluster."""
    first: dict[str, Passage] = {}
    for passage in passages:
        cluster = context_id(passage.context)
        first.setdefault(cluster, dataclasses.replace(passage, context_id=cluster))
    return list(first.values())
