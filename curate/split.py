"""Writing the folds as splits: the train split balanced, and nothing in two splits at once."""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from curate.errors import UserError
from curate.record import FOLDS, Dropped, Row

STEP = "split"


def split(
    rows: list[Row], share: float, balance: bool, tolerance: float, seed: int
) -> tuple[dict[str, list[Row]], list[Dropped]]:
    """Rows by fold, and what was left out: rows without a label, and train's surplus.

    Balancing touches `train` alone. The other splits say how well a model does on what the
    sources hold, and must stay as they are.
    """
    dropped = [
        Dropped(row, STEP, "unlabelled", "nobody has said yet whether the context suffices")
        for row in rows
        if row.sufficient is None
    ]
    splits: dict[str, list[Row]] = {fold: [] for fold in FOLDS if fold != "stream"}
    for row in rows:
        if row.sufficient is not None:
            splits.setdefault(row.fold, []).append(row)
    if balance:
        splits["train"], surplus = _balanced(splits["train"], share, tolerance, seed)
        dropped += surplus
    check(splits)
    return splits, dropped


def _balanced(
    rows: list[Row], share: float, tolerance: float, seed: int
) -> tuple[list[Row], list[Dropped]]:
    """Bring the share of insufficient rows within the tolerance by leaving out the surplus."""
    insufficient = sum(not row.sufficient for row in rows)
    if not rows or abs(insufficient / len(rows) - share) <= tolerance:
        return rows, []
    too_many = insufficient / len(rows) > share
    heavy = [row for row in rows if bool(row.sufficient) != too_many]
    others = len(rows) - len(heavy)
    bound = (share if too_many else 1 - share) + tolerance
    if not others or bound >= 1:
        return rows, []  # one label only: there is nothing to balance it with
    room = int(others * bound / (1 - bound))
    gone = {row.id for row in _surplus(heavy, max(0, len(heavy) - room), seed)}
    detail = f"more than {bound:.0%} of train would have this label"
    dropped = [Dropped(row, STEP, "balance", detail) for row in rows if row.id in gone]
    return [row for row in rows if row.id not in gone], dropped


def _surplus(rows: list[Row], count: int, seed: int) -> list[Row]:
    """``count`` rows to leave out, each from the reason that is the most frequent at the time."""
    by_reason: dict[str, list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row.id):
        by_reason[row.reason].append(row)
    for reason, members in by_reason.items():
        random.Random(f"{seed}/{reason}").shuffle(members)
    result = []
    for _ in range(count):
        reason = max(by_reason, key=lambda name: (len(by_reason[name]), name))
        result.append(by_reason[reason].pop())
    return result


def check(splits: Mapping[str, Iterable[Row]]) -> None:
    """Raise where a document, a context cluster or a parent lies in two splits."""
    seen: dict[tuple[str, str], str] = {}
    for fold, rows in splits.items():
        for row in rows:
            family = row.parent_id or row.id
            for kind, value in (
                ("document", row.document_id),
                ("context", row.context_id),
                ("parent", family),
            ):
                if value and seen.setdefault((kind, value), fold) != fold:
                    raise UserError(
                        f"leak: {kind} {value} is in {seen[kind, value]} and in {fold} "
                        f"(row {row.id}); nothing was written"
                    )


def counts(splits: Mapping[str, list[Row]]) -> dict[str, dict[str, dict[str, int]]]:
    """Of each split: rows by label, by reason and by method."""
    names = {True: "sufficient", False: "insufficient"}
    return {
        fold: {
            "label": dict(sorted(Counter(names[bool(r.sufficient)] for r in rows).items())),
            "reason": dict(sorted(Counter(r.reason for r in rows if r.reason).items())),
            "method": dict(sorted(Counter(r.method for r in rows).items())),
        }
        for fold, rows in splits.items()
    }
