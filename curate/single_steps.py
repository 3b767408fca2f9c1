"""The pipeline's later steps one at a time, over files of rows: deriving, and splitting."""

import shutil
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate import dataset, dedup, folds, record, split
from curate.errors import UserError
from curate.files import writable_folder
from curate.folds import Ledger
from curate.insufficient import contrast, derive
from curate.pipeline import Books
from curate.recipe import FoldShares, InsufficientSettings, SplitSettings
from curate.record import Dropped, Passage, Row


@dataclass
class Placed:
    """Rows and passages with folds and clusters, and rows that no fold can hold."""

    rows: list[Row]
    passages: list[Passage]
    dropped: list[Dropped]
    ledger: Ledger


def place(path: Path, shares: FoldShares, seed: int, ledger: Ledger | None = None) -> Placed:
    """Read a file of rows, drop duplicates, and give a fold to every document that has none.

    Folds that rows already have are kept, and those of a ``ledger``. Raises `UserError` where one
    document has two.
    """
    rows = record.read_rows(path)
    passages = record.read_passages_beside(path)
    known = dict(ledger or {})
    for row in rows:
        if row.fold and known.setdefault(row.document_id, row.fold) != row.fold:
            raise UserError(
                f"{path}: document {row.document_id} is in {known[row.document_id]}, by an earlier "
                f"row or the folds.json of the data set, and by row {row.id} in {row.fold}; a "
                "document has one fold"
            )
    clusters = dedup.context_clusters(rows, passages)
    rows, same = dedup.dedup(rows, clusters, known)
    passages = dedup.dedup_passages(passages, clusters)
    ledger = folds.assign(
        rows,
        passages,
        shares.as_dict(),
        seed,
        known,
        shares.by == "time",
        shares.test_sources,
    )
    rows, passages, dropped = folds.apply(rows, passages, ledger)
    return Placed(rows, passages, [*same, *dropped], ledger)


def insufficient(
    path: Path,
    out: Path,
    settings: InsufficientSettings,
    shares: FoldShares,
    seed: int,
    workers: int = 1,
) -> dict[str, Any]:
    """Add insufficient rows to a file of rows, and the contrast set of its test rows beside it.

    Returns the counts: rows made a method, and candidates dropped a method and reason.
    """
    placed = place(path, shares, seed)
    made = derive.derive(placed.rows, placed.passages, settings, seed, workers)
    both = [*placed.rows, *made.rows]
    contrasted = contrast.contrast(
        [row for row in both if row.fold == "test"], placed.passages, settings, seed
    )
    dropped = [*placed.dropped, *made.dropped]
    ask = settings.verify.disagreement == "annotate"
    annotate = derive.doubtful(made.dropped) if ask else []
    for name, rows in (("", both), (".contrast", contrasted), (".annotate", annotate)):
        record.write_table(record.to_table(rows), out.with_suffix(f"{name}.parquet"))
    record.write_table(record.dropped_to_table(dropped), out.with_suffix(".dropped.parquet"))
    if placed.passages:
        table = record.passages_to_table(placed.passages)
        record.write_table(table, record.passages_beside(out))
    counted: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in made.rows:
        counted[row.method]["made"] += 1
    for one in made.dropped:
        counted[one.row.method][one.drop_reason] += 1
    for name, count in made.unmade.items():
        counted[name]["no_candidate"] += count
    return {
        "rows": len(both),
        "contrast": len(contrasted),
        "dropped": len(dropped),
        "methods": {name: dict(counts) for name, counts in sorted(counted.items())},
    }


def write_splits(
    path: Path, out: Path, share: float, settings: SplitSettings, shares: FoldShares, seed: int
) -> dict[str, Any]:
    """Make a data-set folder of a file of rows; an earlier folder's folds are kept.

    Returns its manifest.
    """
    writable_folder(out)
    placed = place(path, shares, seed, folds.read_ledger(out / "folds.json"))
    splits, surplus = split.split(placed.rows, share, settings.balance, settings.tolerance, seed)
    kept = sum(map(len, splits.values()))
    if not kept:
        raise UserError(f"{path}: no labelled row is left to split; nothing written")
    books = Books()
    rows_in = len(placed.rows) + len(placed.dropped)
    books.close("read", 0, rows_in, [], created=rows_in)
    books.close(folds.STEP, rows_in, len(placed.rows), placed.dropped)
    books.close(split.STEP, len(placed.rows), kept, surplus)
    manifest = {
        "name": path.stem,
        "description": f"Made of {path.name} by `curate split`.",
        "steps": [asdict(step) for step in books.steps],
        "splits": split.counts(splits),
        "passages": {"kept": len(placed.passages)},
    }
    made = dataset.DataSet(
        manifest,
        splits,
        contrast.contrast(splits["test"], placed.passages, InsufficientSettings(), seed),
        [],
        placed.passages,
        books.dropped,
        placed.ledger,
    )
    workspace = out / ".split"
    shutil.rmtree(workspace, ignore_errors=True)
    workspace.mkdir()
    dataset.publish(out, workspace, made)
    return manifest
