"""Make insufficient rows from sufficient ones until the recipe's share is reached.

It must see a whole fold, and never looks beyond it: parents, passages to borrow and the rows
made all lie in the same one.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from curate.dedup import context_id
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

    def created(self) -> int:
        """All candidates, kept or not."""
        return len(self.rows) + len(self.dropped)


def derive(
    rows: list[Row], passages: list[Passage], settings: InsufficientSettings, seed: int
) -> Derived:
    """Derive within each fold; natural insufficient rows count towards the share and all stay."""
    result = Derived()
    by_fold: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_fold[row.fold].append(row)
    for fold in (f for f in FOLDS if f in by_fold):
        contexts = [row.context for row in by_fold[fold]]
        contexts += [passage.context for passage in passages if passage.fold == fold]
        _derive_fold(by_fold[fold], contexts, settings, seed, result)
    return result


def wanted(rows: Iterable[Row], share: float) -> int:
    """How many insufficient rows are missing from ``share`` of the labelled rows."""
    labels = [row.sufficient for row in rows if row.sufficient is not None]
    return max(0, round(share * sum(labels) / (1 - share)) - labels.count(False))


def _derive_fold(
    rows: list[Row],
    contexts: list[str],
    settings: InsufficientSettings,
    seed: int,
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
            row = _next(queues[method], method, makers[method], result)
            if row is None:
                del queues[method]
            elif missing:
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


def _next(queue: list[Row], method: str, make: Maker, result: Derived) -> Row | None:
    """The next parent's row that passes the check; failures on the way are dropped."""
    while queue:
        parent = queue.pop()
        made = make(parent)
        if made is None:
            failed = _child(parent, method, "", 0.0)
            result.dropped.append(Dropped(failed, STEP, "no_candidate", f"by {method}"))
            continue
        row = verify.vote(_child(parent, method, *made), parent.answers)
        if not any(row.votes.values()):
            return row
        detail = f"an accepted answer is still there: {'; '.join(parent.answers)}"
        result.dropped.append(Dropped(row, STEP, "answer_still_present", detail[:200]))
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
