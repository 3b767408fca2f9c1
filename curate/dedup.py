"""Deduplication (exact, after normalisation). It must see every row: no batch can do it alone."""

import dataclasses
import re
from collections import defaultdict

from curate.record import Dropped, Passage, Row, digest
from curate.text import words

STEP = "dedup"


def context_id(context: str) -> str:
    """The cluster of a context: the same words in the same order are the same context."""
    found = words(context)
    return digest(*found) if found else ""


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
    clusters = {context: context_id(context) for context in {row.context for row in rows}}
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
    return kept, dropped


def dedup_passages(passages: list[Passage]) -> list[Passage]:
    """The first passage of each cluster, with its cluster."""
    first: dict[str, Passage] = {}
    for passage in passages:
        cluster = context_id(passage.context)
        first.setdefault(cluster, dataclasses.replace(passage, context_id=cluster))
    return list(first.values())
