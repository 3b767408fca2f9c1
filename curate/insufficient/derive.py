"""Make insufficient rows from sufficient ones until the recipe's share is reached.

It must see a whole fold, and never looks beyond it: parents, passages to borrow and the rows
made all lie in the same one.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from curate.dedup import Key, context_id, key
from curate.insufficient import context_swapped, evidence_removed, no_context, verify
from curate.recipe import InsufficientSettings
from curate.record import FOLDS, Dropped, Passage, Row

STEP = "insufficient"
Maker = Callable[[Row], tuple[str, float] | None]


@dataclass
class Derived:
    """The rows that were made, and the candidates that failed."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)


def derive(
    rows: list[Row], passages: list[Passage], settings: InsufficientSettings, seed: int
) -> Derived:
    """Derive within each fold; natural insufficient rows count towards the share and all stay."""
    result = Derived()
    known = _Known.of(rows, passages)
    by_fold: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_fold[row.fold].append(row)
    for fold in (f for f in FOLDS if f in by_fold):
        contexts = [row.context for row in by_fold[fold]]
        contexts += [passage.context for passage in passages if passage.fold == fold]
        _derive_fold(by_fold[fold], contexts, settings, seed, known, result)
    return result


@dataclass
class _Known:
    """What a new row must not repeat, contradict, or carry over into another fold."""

    rows: dict[Key, Row]
    homes: dict[str, str]  # context cluster → fold

    @classmethod
    def of(cls, rows: list[Row], passages: list[Passage]) -> "_Known":
        homes = {passage.context_id: passage.fold for passage in passages}
        homes |= {row.context_id: row.fold for row in rows}
        return cls({key(row): row for row in rows}, homes)

    def objection(self, row: Row) -> tuple[str, str] | None:
        """The reason why ``row`` cannot be added, and what it turns on."""
        home = self.homes.get(row.context_id, row.fold)
        if row.context_id and home != row.fold:
            return "context_in_other_fold", f"the same context came about in {home}"
        if twin := self.rows.get(key(row)):
            reason = "contradictory_labels" if twin.sufficient else "exact_duplicate"
            return reason, f"the same question and context as {twin.id}"
        return None

    def add(self, row: Row) -> None:
        self.rows[key(row)] = row
        self.homes.setdefault(row.context_id, row.fold)


def wanted(rows: Iterable[Row], share: float) -> int:
    """How many insufficient rows are missing from ``share`` of the labelled rows."""
    labels = [row.sufficient for row in rows if row.sufficient is not None]
    return max(0, round(share * sum(labels) / (1 - share)) - labels.count(False))


def _derive_fold(
    rows: list[Row],
    contexts: list[str],
    settings: InsufficientSettings,
    seed: int,
    known: _Known,
    result: Derived,
) -> None:
    missing = wanted(rows, settings.share)
    if not missing or not settings.methods:
        return
    makers = _makers(contexts)
    parents = sorted((row for row in rows if row.sufficient), key=lambda row: row.id)
    queues = {}
    for method in settings.methods:
        queues[method] = list(parents)
        random.Random(f"{seed}/{method}/{rows[0].fold}").shuffle(queues[method])
    # Methods take turns, so that each makes an equal part as long as it can make any.
    while missing and queues:
        for method in list(queues):
            row = _next(queues[method], method, makers[method], known, result)
            if row is None:
                del queues[method]
            elif missing:
                known.add(row)
                result.rows.append(row)
                missing -= 1
            if not missing:
                break


def _makers(contexts: list[str]) -> dict[str, Maker]:
    index = context_swapped.build_index(contexts)
    return {
        "no_context": no_context.candidate,
        "evidence_removed": evidence_removed.candidate,
        "context_swapped": lambda row: context_swapped.candidate(row, index),
    }


_REASONS = {
    "no_context": no_context.REASON,
    "evidence_removed": evidence_removed.REASON,
    "context_swapped": context_swapped.REASON,
}


def _next(queue: list[Row], method: str, make: Maker, known: _Known, result: Derived) -> Row | None:
    """The next parent's row that passes the checks; failures on the way are dropped."""
    while queue:
        parent = queue.pop()
        made = make(parent)
        if made is None:
            failed = _child(parent, method, "", 0.0)
            result.dropped.append(Dropped(failed, STEP, "no_candidate", f"by {method}"))
            continue
        row = verify.vote(_child(parent, method, *made), parent.answers)
        if any(row.votes.values()):
            detail = f"an accepted answer is still there: {'; '.join(parent.answers)}"
            result.dropped.append(Dropped(row, STEP, "answer_still_present", detail[:200]))
        elif objection := known.objection(row):
            result.dropped.append(Dropped(row, STEP, *objection))
        else:
            return row
    return None


def _child(parent: Row, method: str, context: str, intensity: float) -> Row:
    return Row(
        question=parent.question,
        context=context,
        history=parent.history,
        sufficient=False,
        reason=_REASONS[method],
        method=method,
        intensity=round(intensity, 6),
        parent_id=parent.id,
        document_id=parent.document_id,
        context_id=context_id(context),
        fold=parent.fold,
        source=parent.source,
        source_id=parent.source_id,
        url=parent.url,
        licence=parent.licence,
        language=parent.language,
        retrieved_at=parent.retrieved_at,
    ).stamped()
