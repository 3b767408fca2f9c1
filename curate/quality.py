"""What a data set is like: the figures of its report and its card.

Consistency, accuracy, coverage, balance and diversity, leaks, shortcuts: each a function of the
rows that were written, so that a folder can be judged again at any time.
"""

import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from curate.audit.labels import Judgement, precision
from curate.audit.leaks import leaks
from curate.audit.shortcuts import shortcuts
from curate.insufficient.derive import DISAGREEMENT
from curate.insufficient.mentions import mentions
from curate.insufficient.verify import disagreeing
from curate.record import NOT_A_SPAN, Dropped, Row
from curate.text import asking_word, normalise, words
from curate.topics import topics

# Shortcuts, topics and lengths are read off a sample: more rows would hardly move them.
SAMPLE = 5000
_LISTED = 10


def quality(
    splits: Mapping[str, Sequence[Row]],
    judged: Iterable[Judgement] = (),
    dropped: Iterable[Dropped] = (),
) -> dict[str, Any]:
    """All figures, as JSON; of ``dropped``, the rows that verifiers refused count as judged."""
    rows = [row for members in splits.values() for row in members]
    found = leaks(splits)
    train = _sampled(splits.get("train", ()))
    return {
        "consistency": consistency(rows),
        "accuracy": {
            **spans(rows),
            "votes": votes(
                [*rows, *(one.row for one in dropped if one.drop_reason == DISAGREEMENT)]
            ),
            "labels": [each.to_json() for each in precision(judged)],
        },
        "coverage": coverage(rows),
        "diversity": diversity(rows),
        "leaks": {"count": len(found), "first": [leak.to_json() for leak in found[:_LISTED]]},
        "shortcuts": [shortcut.to_json() for shortcut in shortcuts(train)],
    }


def _sampled(rows: Sequence[Row]) -> list[Row]:
    rows = sorted(rows, key=lambda row: row.id)
    return random.Random(0).sample(rows, SAMPLE) if len(rows) > SAMPLE else rows


def consistency(rows: Iterable[Row]) -> dict[str, Any]:
    """Questions asked more than once of one context: do they agree on label and answer?"""
    asked: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in rows:
        if not row.history:
            asked[" ".join(words(row.question)), row.context_id].append(row)
    repeated = [members for (_, context), members in asked.items() if context and len(members) > 1]
    labels = [members for members in repeated if len({row.sufficient for row in members}) > 1]
    answers = [
        members
        for members in repeated
        if len({row.sufficient for row in members}) == 1
        and len({normalise(row.answers[0]) if row.answers else "" for row in members}) > 1
    ]
    return {
        "questions_repeated": len(repeated),
        "other_label": [[row.id for row in members] for members in labels[:_LISTED]],
        "other_label_count": len(labels),
        "other_answer": [[row.id for row in members] for members in answers[:_LISTED]],
        "other_answer_count": len(answers),
    }


def spans(rows: Iterable[Row]) -> dict[str, int]:
    """How many answers are spans, and how many of these stand where their offsets say."""
    found = [
        row.context[start : start + len(answer)] == answer
        for row in rows
        for answer, start in zip(row.answers, row.answer_starts, strict=True)
        if start != NOT_A_SPAN
    ]
    return {"spans": len(found), "spans_right": sum(found)}


def votes(rows: Iterable[Row]) -> dict[str, dict[str, int]]:
    """Of each verifier, the votes cast and those that agree with the label."""
    counted: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for name in row.votes:
            counted[name]["cast"] += 1
            counted[name]["agree"] += name not in disagreeing(row, [name])
    return {name: dict(found) for name, found in sorted(counted.items())}


def coverage(rows: Sequence[Row]) -> dict[str, Any]:
    """What is asked, what is answered, how long, about what, from where."""
    some = _sampled(rows)
    lengths = {
        "question": [len(words(row.question)) for row in some],
        "context": [len(words(row.context)) for row in some],
        "answer": [len(words(row.answers[0])) for row in some if row.answers],
    }
    return {
        "question_types": _counted(asking_word(row.question) or "yes or no" for row in rows),
        "answer_types": _counted(answer_type(row.answers[0]) for row in rows if row.answers),
        "reasons": _counted(row.reason or "sufficient" for row in rows),
        "methods": _counted(row.method for row in rows),
        "sources": _counted(row.source for row in rows),
        "licences": _counted(row.licence or "unknown" for row in rows),
        "languages": _counted(row.language for row in rows),
        "words": {name: _quantiles(values) for name, values in lengths.items() if values},
        "topics": topics(sorted({row.context for row in some if row.context})),
    }


def answer_type(answer: str) -> str:
    """What kind of thing an answer is, told by its form."""
    if normalise(answer) in ("yes", "no"):
        return "yes or no"
    kinds = [mention.kind for mention in mentions(answer)]
    for kind in ("date", "year", "money", "percent", "number"):
        if kind in kinds:
            return "number" if kind not in ("date", "year") else "date"
    if kinds:
        return "name"
    return "phrase" if len(words(answer)) <= 5 else "clause"


def diversity(rows: Sequence[Row]) -> dict[str, float]:
    """How much of the questions is said once only, and how many share a context."""
    pairs = [
        pair
        for row in rows
        for asked in [words(row.question)]
        for pair in itertools.pairwise(asked)
    ]
    types = np.array(list(Counter(asking_word(row.question) for row in rows).values()), float)
    shares = types / types.sum() if len(types) else types
    contexts = {row.context_id for row in rows}
    return {
        # Distinct bigrams over all (Li et al. 2016).
        "distinct_2": round(len(set(pairs)) / max(1, len(pairs)), 4),
        # Of the kinds of question, in bits.
        "question_type_entropy": round(float(-(shares * np.log2(shares)).sum()), 4),
        "questions_per_context": round(len(rows) / max(1, len(contexts)), 2),
    }


def _counted(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _quantiles(values: Sequence[int]) -> dict[str, int]:
    found = np.percentile(values, [5, 50, 95]).round().astype(int)
    return dict(zip(("p5", "median", "p95"), map(int, found), strict=True))
