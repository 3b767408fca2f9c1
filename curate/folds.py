"""Folds: every document gets one before anything is derived from it, and keeps it for good.

It must see every row. Documents that share a context stay together. The ledger (`folds.json`)
is extended by later builds and never rewritten, so that a row once tested on is never trained on.
"""

import dataclasses
import itertools
from collections import Counter, defaultdict
from collections.abc import Collection
from pathlib import Path

from curate.errors import UserError
from curate.files import exists, read_json
from curate.record import FOLDS, Dropped, Passage, Row, digest

STEP = "folds"
# Of a context in two folds the later of these keeps it: what was tested on is never trained on.
_HOLD = ("stream", "train", "validation", "calibration", "test")
Ledger = dict[str, str]  # document_id → fold


def read_ledger(path: Path) -> Ledger:
    """The ledger of an earlier build, or an empty one where there is none."""
    if not exists(path):
        return {}
    value = read_json(path)
    documents = value.get("documents") if isinstance(value, dict) else None
    if not isinstance(documents, dict) or any(v not in FOLDS for v in documents.values()):
        raise UserError(
            f"{path}: not a fold ledger; restore it from a backup, or delete the data set"
        )
    return documents


def assign(
    rows: list[Row],
    passages: list[Passage],
    shares: dict[str, float],
    seed: int,
    ledger: Ledger,
    by_time: bool = False,
    test_sources: Collection[str] = (),
) -> Ledger:
    """The ledger with a fold for every document.

    Documents with rows are placed by their rows; those with passages alone come afterwards, so
    that every fold also gets its share of what can be borrowed. ``by_time``: the oldest documents
    (by ``published_at``, else ``retrieved_at``) fill the first fold, the newest the last, as a
    service will meet them.
    What comes from ``test_sources`` is tested on, together with what shares its contexts.
    """
    groups = _groups(rows, passages)
    members: dict[str, list[str]] = defaultdict(list)
    for document, group in groups.items():
        members[group].append(document)
    placed: dict[str, str] = {}
    for group, documents in members.items():
        # A group of which the ledger knows a part follows it.
        known = Counter(ledger[document] for document in documents if document in ledger)
        if known:
            placed[group] = min(known, key=lambda fold: (-known[fold], FOLDS.index(fold)))
    items: list[Row | Passage] = [*rows, *passages]
    for item in items:
        if item.source in test_sources:
            group = groups[item.document_id]
            if placed.setdefault(group, "test") != "test":
                raise UserError(
                    f"folds.test_sources: document {item.document_id} of source '{item.source}' is "
                    f"in {placed[group]} since an earlier build; build into another folder"
                )
    if by_time:
        _place_by_time(rows, groups, placed, shares)
    _place(_strata(rows, groups), placed, shares, seed)
    _place([(groups[p.document_id], "") for p in passages], placed, shares, seed)
    new = {document: placed[group] for document, group in groups.items()}
    return dict(sorted((new | ledger).items()))


def _strata(rows: list[Row], groups: dict[str, str]) -> list[tuple[str, str]]:
    """Each row's group with its label and reason and, where there are several, its source."""
    found = [(groups[row.document_id], f"{row.sufficient}/{row.reason}") for row in rows]
    if len({row.source for row in rows}) > 1:
        found += [(groups[row.document_id], f"source {row.source}") for row in rows]
    return found


def _time(row: Row) -> str:
    return row.published_at or row.retrieved_at


def _place_by_time(
    rows: list[Row], groups: dict[str, str], placed: dict[str, str], shares: dict[str, float]
) -> None:
    """Whole groups in the order of their newest row, each where its middle row falls."""
    missing = [row for row in rows if not _time(row)]
    if missing:
        raise UserError(
            f"folds.by: time needs every row's 'published_at' or 'retrieved_at'; {len(missing)} "
            f"rows have none (the first: {missing[0].id} of source '{missing[0].source}')"
        )
    newest: dict[str, str] = {}
    sizes: Counter[str] = Counter()
    for row in rows:
        group = groups[row.document_id]
        newest[group] = max(newest.get(group, ""), _time(row))
        sizes[group] += 1
    before = 0
    for group in sorted(sizes, key=lambda name: (newest[name], name)):
        middle = (before + sizes[group] / 2) / len(rows)
        before += sizes[group]
        ends = itertools.accumulate(shares.values())
        fold = next((f for f, end in zip(shares, ends, strict=True) if middle <= end), "")
        placed.setdefault(group, fold or list(shares)[-1])


def _place(
    items: list[tuple[str, str]], placed: dict[str, str], shares: dict[str, float], seed: int
) -> None:
    """Add to ``placed`` a fold for each group of ``items``, pairs of a group and a stratum.

    Greedy, largest group first, each to the fold that its rows' labels and reasons are most
    missing from: stratification as far as whole documents allow (after Sechidis et al. 2011).
    """
    strata: dict[str, Counter[str]] = defaultdict(Counter)
    for group, stratum in items:
        strata[group][stratum] += 1
    totals = Counter(stratum for _, stratum in items)
    filled: dict[str, Counter[str]] = defaultdict(Counter)
    for group, fold in placed.items():
        filled[fold].update(strata.get(group, Counter()))
    waiting = [group for group in strata if group not in placed]
    waiting.sort(key=lambda group: (-strata[group].total(), digest(str(seed), group)))
    for index, group in enumerate(waiting):
        # A fold without any row would leave a later command without its data.
        empty = [fold for fold in shares if not filled[fold]]
        open_folds = empty if len(waiting) - index <= len(empty) else list(shares)
        fold = max(open_folds, key=lambda f: _gain(strata[group], filled[f], totals, shares[f]))
        filled[fold].update(strata[group])
        placed[group] = fold


def _gain(group: Counter[str], filled: Counter[str], totals: Counter[str], share: float) -> float:
    """How much nearer the fold comes to its share of each stratum by taking the group."""
    gain = 0.0
    for counts, have, all_of_it in [
        (group.total(), filled.total(), totals.total()),
        *((count, filled[name], totals[name]) for name, count in group.items()),
    ]:
        target = max(share * all_of_it, 1e-9)
        gain += ((target - have) ** 2 - (target - have - counts) ** 2) / target
    return gain


def _groups(rows: list[Row], passages: list[Passage]) -> dict[str, str]:
    """Document → the name of its group: documents tied by equal contexts are one group."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        leader.setdefault(name, name)
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    items: list[Row | Passage] = [*rows, *passages]
    for item in items:
        document = find(f"document {item.document_id}")
        if item.context_id:
            cluster = find(f"context {item.context_id}")
            first, second = sorted((document, cluster))
            leader[second] = first
    documents = dict.fromkeys(item.document_id for item in items)
    return {document: find(f"document {document}") for document in documents}


def apply(
    rows: list[Row], passages: list[Passage], ledger: Ledger
) -> tuple[list[Row], list[Passage], list[Dropped]]:
    """Write the folds into rows and passages.

    Where a new build ties documents that the ledger has already parted, the rows of a shared
    context stay in the fold that must least be trained on, and the others are dropped.
    """
    homes: dict[str, str] = {}
    for row in rows:
        if row.context_id:
            fold = ledger[row.document_id]
            homes[row.context_id] = max(homes.get(row.context_id, fold), fold, key=_HOLD.index)
    kept: list[Row] = []
    dropped: list[Dropped] = []
    for row in rows:
        fold = ledger[row.document_id]
        home = homes.get(row.context_id, fold)
        if home == fold:
            kept.append(dataclasses.replace(row, fold=fold))
        else:
            detail = f"its document is in {fold}, its context already in {home}"
            dropped.append(Dropped(row, STEP, "context_in_other_fold", detail))
    placed = [
        dataclasses.replace(passage, fold=ledger[passage.document_id])
        for passage in passages
        if homes.get(passage.context_id, ledger[passage.document_id]) == ledger[passage.document_id]
    ]
    return kept, placed, dropped
