"""`curate build`: the recipe's steps in order, resumable, every row accounted for.

read ─▶ clean ─▶ dedup ─▶ folds ─▶ insufficient ─▶ split ─▶ the data-set folder

Reading and cleaning are row-wise: batches go through them independently and in any order. The
other steps must see everything. Each finished step (of cleaning, each finished batch) lies in
``OUT/.build`` until the folder is complete, so that a killed build goes on where it stopped. No
step reads a clock or a random state of the machine: the same inputs give the same bytes.
"""

import contextlib
import dataclasses
import functools
import multiprocessing
import os
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from curate import clean, dataset, dedup, folds, split
from curate import recipe as recipes
from curate.errors import UserError
from curate.files import exists, read_json, sha256
from curate.insufficient import derive
from curate.recipe import CleanSettings, Recipe, SiteSource, Source, SquadSource
from curate.record import Dropped, Passage, Row, digest
from curate.workspace import Content, Workspace

# Raised whenever the same recipe and sources may give another result: finished work of an
# older version is then not taken up.
FORMAT = 3
_BATCH = 1000


@dataclass(frozen=True)
class StepCount:
    """One step's books; ``rows_in + created == kept + dropped`` always."""

    step: str
    rows_in: int
    created: int
    kept: int
    dropped: int
    reasons: dict[str, int] = field(default_factory=dict)


def count_step(
    step: str, rows_in: int, kept: int, dropped: list[Dropped], created: int = 0
) -> StepCount:
    """Close a step's books, or fail: a row that vanishes without a reason is a defect."""
    if rows_in + created != kept + len(dropped):
        raise RuntimeError(
            f"step {step}: {rows_in} in + {created} created ≠ {kept} kept + {len(dropped)} dropped"
        )
    reasons = Counter(d.drop_reason for d in dropped)
    return StepCount(step, rows_in, created, kept, len(dropped), dict(sorted(reasons.items())))


def build(recipe_path: Path, out: Path, workers: int = 1, fresh: bool = False) -> dict[str, Any]:
    """Run a recipe and write the data-set folder ``out``; returns its manifest.

    An unchanged recipe over unchanged sources is not built again. ``fresh`` discards finished
    steps, but never the fold ledger: delete the folder to draw new folds.
    """
    recipe = recipes.load(recipe_path)
    fingerprint = _fingerprint(recipe)
    if not fresh and dataset.is_complete(out, fingerprint):
        note = f"{out}: already built from this recipe and these sources (--fresh to redo)"
        tqdm.write(note, file=sys.stderr)  # stdout is for the result, which may be JSON
        shutil.rmtree(out / ".build", ignore_errors=True)  # of a build killed at the very end
        manifest: dict[str, Any] = read_json(out / "manifest.json")
        return manifest
    workspace = Workspace(out / ".build", fingerprint, fresh)
    ledger = folds.read_ledger(out / "folds.json")
    steps: list[StepCount] = []
    dropped: list[Dropped] = []

    def close(step: str, rows_in: int, kept: int, gone: list[Dropped], created: int = 0) -> None:
        steps.append(count_step(step, rows_in, kept, gone, created))
        dropped.extend(gone)

    content = read_sources(recipe, workspace)
    close("read", 0, len(content.rows), [], created=len(content.rows))

    cleaned = clean_all(content, recipe.clean, workspace, workers)
    close(clean.STEP, len(content.rows), len(cleaned.rows), cleaned.dropped)

    rows, gone = dedup.dedup(cleaned.rows)
    close(dedup.STEP, len(cleaned.rows), len(rows), gone)
    passage_counts = {"read": len(content.passages), "cleaned": len(cleaned.passages)}
    passages = dedup.dedup_passages(cleaned.passages)
    passage_counts["deduplicated"] = len(passages)

    shares = recipe.folds.as_dict()
    ledger = folds.assign(rows, passages, shares, recipe.seed, ledger)
    placed, passages, gone = folds.apply(rows, passages, ledger)
    close(folds.STEP, len(rows), len(placed), gone)
    passage_counts["kept"] = len(passages)

    def make() -> Content:
        made = derive.derive(placed, passages, recipe.insufficient, recipe.seed)
        return Content(made.rows, dropped=made.dropped)

    derived = workspace.once("insufficient", make)
    created = len(derived.rows) + len(derived.dropped)
    both = [*placed, *derived.rows]
    close(derive.STEP, len(placed), len(both), derived.dropped, created)

    splits, gone = split.split(
        both, recipe.insufficient.share, recipe.split.balance, recipe.split.tolerance, recipe.seed
    )
    close(split.STEP, len(both), sum(map(len, splits.values())), gone)

    if not any(splits.values()):
        why = ", ".join(
            f"{name} {n}" for name, n in Counter(d.drop_reason for d in dropped).items()
        )
        raise UserError(f"{recipe_path}: no row is left; dropped: {why or 'none'}; nothing written")

    manifest = {
        "name": recipe.name,
        "fingerprint": fingerprint,
        "recipe": _portable(recipe),
        "steps": [asdict(step) for step in steps],
        "splits": split.counts(splits),
        "passages": passage_counts,
    }
    dataset.publish(out, workspace.folder, recipe, manifest, splits, passages, dropped, ledger)
    return manifest


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as stored: file names without the folders of the machine that built it."""
    value = recipe.model_dump()
    for source in value["sources"]:
        if not source["path"].startswith("hub:"):
            source["path"] = Path(source["path"]).name
    return value


def _fingerprint(recipe: Recipe) -> str:
    """Recipe, sources and format: what the result depends on."""
    hashes = []
    for source in recipe.sources:
        name, _, split = source.path.removeprefix("hub:").partition("@")
        if source.path.startswith("hub:"):
            # A data set on the hub is known by its name, a local folder by what is in it.
            local = Path(name)
            hashes.append(f"{sha256(local)}@{split}" if exists(local) else source.path)
        elif not exists(Path(source.path)):
            raise UserError(f"source '{source.name}': there is no {source.path}")
        else:
            hashes.append(sha256(Path(source.path)))
    return digest(
        str(FORMAT), recipe.model_dump_json(exclude={"sources": {"__all__": {"path"}}}), *hashes
    )


def read_source(source: Source) -> Content:
    """Everything that one source holds."""
    from curate.sources import site, squad, table

    if isinstance(source, SiteSource):
        return Content(*site.read(source.path, source.name, source.licence, source.base_url))
    found: Iterator[Row]
    if isinstance(source, SquadSource):
        found = squad.read(source.path, source.name, source.licence)
    else:
        found = table.read(source.path, source.name, source.licence, source.columns)
    return Content(list(tqdm(found, desc=f"read {source.name}", unit="row")))


def read_sources(recipe: Recipe, workspace: Workspace) -> Content:
    """All sources in the recipe's order; ids are made unique, since sources may repeat theirs."""
    result = Content()
    for number, source in enumerate(recipe.sources):
        content = workspace.once(f"read-{number}", functools.partial(read_source, source))
        result.rows += content.rows
        result.passages += content.passages
    seen: Counter[str] = Counter()
    for row in result.rows:
        first_id = row.id
        if seen[first_id]:
            row.id = digest(first_id, str(seen[first_id]))
        seen[first_id] += 1
    return result


def clean_batch(batch: list[Row], settings: CleanSettings) -> Content:
    """The row-wise step on one batch, as a function that any engine can send anywhere."""
    kept, dropped = clean.clean(batch, settings)
    return Content(kept, dropped=dropped)


def _end_with_parent() -> None:
    """Have a worker end when the build is killed: else it waits for work for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def clean_all(
    content: Content, settings: CleanSettings, workspace: Workspace, workers: int
) -> Content:
    """Clean rows batch by batch, in ``workers`` processes; passages are cleaned alongside."""
    rows = content.rows
    batches = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
    todo = [n for n in range(len(batches)) if not workspace.has(f"clean-{n:05}")]
    function = functools.partial(clean_batch, settings=settings)
    bar = tqdm(total=len(content.rows), desc="clean", unit="row")
    bar.update(len(content.rows) - sum(len(batches[n]) for n in todo))
    pool_or_none = (
        ProcessPoolExecutor(workers, initializer=_end_with_parent)
        if workers > 1
        else contextlib.nullcontext()
    )
    with pool_or_none as pool:
        run = pool.map if pool is not None else map
        for number, done in zip(todo, run(function, [batches[n] for n in todo]), strict=True):
            workspace.save(f"clean-{number:05}", done)
            bar.update(len(batches[number]))
    bar.close()
    result = Content(passages=_clean_passages(content.passages, settings))
    for number in range(len(batches)):
        part = workspace.load(f"clean-{number:05}")
        result.rows += part.rows
        result.dropped += part.dropped
    return result


def _clean_passages(passages: list[Passage], settings: CleanSettings) -> list[Passage]:
    cleaned = [
        dataclasses.replace(passage, context=clean.clean_text(passage.context))
        for passage in passages
        if len(passage.context) <= settings.max_context_chars
    ]
    return [passage for passage in cleaned if passage.context]
