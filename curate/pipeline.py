"""`curate build`: the recipe's steps in order, resumable, every row accounted for.

read ─▶ clean ─▶ task ─▶ dedup ─▶ folds ─▶ insufficient ─▶ split ─▶ the data-set folder

Reading and cleaning are row-wise: batches go through them independently and in any order. The
other steps must see everything. Each finished step (of cleaning, each finished batch) lies in
``OUT/.build`` until the folder is complete, so that a killed build goes on where it stopped. No
step reads a clock or a random state of the machine: the same inputs give the same bytes.
"""

import dataclasses
import functools
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from curate import clean, dataset, dedup, folds, split, task
from curate import recipe as recipes
from curate.audit import balance
from curate.chat import without_password
from curate.console import say
from curate.errors import UserError
from curate.files import exists, read_json, sha256
from curate.insufficient import contrast, derive
from curate.recipe import CleanSettings, Recipe, Source
from curate.record import Dropped, Passage, Row, digest, passages_beside
from curate.workers import mapping
from curate.workspace import Content, Workspace

# Raised whenever the same recipe and sources may give another result: finished work of an
# older version is then not taken up.
FORMAT = 7
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
    edits: dict[str, int] = field(default_factory=dict)  # of cleaning: rule → texts it changed


@dataclass
class Books:
    """Every step's count, and every row that was left out."""

    steps: list[StepCount] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def close(
        self,
        step: str,
        rows_in: int,
        kept: int,
        dropped: list[Dropped],
        created: int = 0,
        edits: Mapping[str, int] | None = None,
    ) -> None:
        """Close a step, or fail: a row that vanishes without a reason is a defect."""
        gone = len(dropped)
        if rows_in + created != kept + gone:
            raise RuntimeError(
                f"step {step}: {rows_in} in + {created} created ≠ {kept} kept + {gone} dropped"
            )
        reasons = dict(sorted(Counter(d.drop_reason for d in dropped).items()))
        edited = dict(sorted((edits or {}).items()))
        self.steps.append(StepCount(step, rows_in, created, kept, gone, reasons, edited))
        self.dropped += dropped


def build(recipe_path: Path, out: Path, workers: int = 1, fresh: bool = False) -> dict[str, Any]:
    """Run a recipe and write the data-set folder ``out``; returns its manifest.

    An unchanged recipe over unchanged sources is not built again. ``fresh`` discards finished
    steps, but never the fold ledger: delete the folder to draw new folds. A script that asks for
    more than one worker needs the guard ``if __name__ == "__main__"``: each imports it anew.
    """
    recipe = recipes.load(recipe_path)
    fingerprint = _fingerprint(recipe)
    if not fresh and dataset.is_complete(out, fingerprint):
        say(f"{out}: already built from this recipe and these sources (--fresh to redo)")
        shutil.rmtree(out / ".build", ignore_errors=True)  # of a build killed at the very end
        manifest: dict[str, Any] = read_json(out / "manifest.json")
        return manifest
    workspace = Workspace(out / ".build", fingerprint, fresh)
    books = Books()
    rows, passages, ledger, counts = _placed(recipe, workspace, books, out, workers)

    def make() -> Content:
        found = derive.derive(rows, passages, recipe.insufficient, recipe.seed, workers)
        nothing = {f"nothing for {name}": count for name, count in found.unmade.items()}
        return Content(found.rows, dropped=found.dropped, edits=Counter(nothing))

    derived = workspace.once("insufficient", make)
    created = len(derived.rows) + len(derived.dropped)
    both = [*rows, *derived.rows]
    gone = derived.dropped
    books.close(derive.STEP, len(rows), len(both), gone, created, derived.edits)
    splits = _split(both, recipe, books)
    if not any(splits.values()):
        reasons = Counter(one.drop_reason for one in books.dropped)
        why = ", ".join(f"{name} {count}" for name, count in reasons.items())
        raise UserError(f"{recipe_path}: no row is left; dropped: {why or 'none'}; nothing written")

    manifest = {
        "name": recipe.name,
        "description": recipe.description,
        "fingerprint": fingerprint,
        "recipe": _portable(recipe),
        "steps": [asdict(step) for step in books.steps],
        "splits": split.counts(splits),
        "passages": counts,
    }
    ask = recipe.insufficient.verify.disagreement == "annotate"
    made = dataset.DataSet(
        manifest,
        splits,
        contrast.contrast(splits["test"], passages, recipe.insufficient, recipe.seed),
        derive.doubtful(derived.dropped) if ask else [],
        passages,
        books.dropped,
        ledger,
    )
    dataset.publish(out, workspace.folder, made)
    return manifest


def _placed(
    recipe: Recipe, workspace: Workspace, books: Books, out: Path, workers: int
) -> tuple[list[Row], list[Passage], folds.Ledger, dict[str, int]]:
    """Rows and passages, clean and with their folds, the ledger, and how many passages stayed."""
    content = read_sources(recipe, workspace)
    books.close("read", 0, len(content.rows), [], created=len(content.rows))
    cleaned = clean_all(content, recipe.clean, workspace, workers)
    kept = len(cleaned.rows)
    books.close(clean.STEP, len(content.rows), kept, cleaned.dropped, edits=cleaned.edits)
    counts = {"read": len(content.passages), "cleaned": len(cleaned.passages)}
    if recipe.task != "open":
        cleaned.rows, gone = task.admit(cleaned.rows, recipe.task)
        books.close(task.STEP, kept, len(cleaned.rows), gone)
        kept = len(cleaned.rows)
    del content  # the texts as they were are half of what is in memory

    clusters = dedup.context_clusters(cleaned.rows, cleaned.passages)
    known = folds.read_ledger(out / "folds.json")
    rows, gone = dedup.dedup(cleaned.rows, clusters, known)
    books.close(dedup.STEP, kept, len(rows), gone)
    passages = dedup.dedup_passages(cleaned.passages, clusters)
    counts["deduplicated"] = len(passages)
    chosen = recipe.folds
    ledger = folds.assign(
        rows,
        passages,
        chosen.as_dict(),
        recipe.seed,
        known,
        chosen.by == "time",
        chosen.test_sources,
    )
    placed, passages, gone = folds.apply(rows, passages, ledger)
    books.close(folds.STEP, len(rows), len(placed), gone)
    return placed, passages, ledger, counts | {"kept": len(passages)}


def _split(rows: list[Row], recipe: Recipe, books: Books) -> dict[str, list[Row]]:
    """The splits, train balanced and, where the recipe has a limit, without shortcuts."""
    chosen = recipe.split
    splits, gone = split.split(
        rows, recipe.insufficient.share, chosen.balance, chosen.tolerance, recipe.seed
    )
    before = sum(map(len, splits.values()))
    books.close(split.STEP, len(rows), before, gone)
    if chosen.shortcut_limit is not None:
        splits["train"], gone = balance.enforce(
            splits["train"], chosen.shortcut_limit, chosen.balance
        )
        books.close(balance.STEP, before, sum(map(len, splits.values())), gone)
    return splits


def _portable(recipe: Recipe) -> dict[str, Any]:
    """The recipe as stored: file names without the folders of the machine that built it."""
    value = recipe.model_dump()
    for source in value["sources"]:
        if not source["path"].startswith("hub:"):
            source["path"] = Path(source["path"]).name
    verify = value["insufficient"]["verify"]
    verify["predictions"] = [Path(file).name for file in verify["predictions"]]
    for model in (value["insufficient"]["writer"], verify["judge"], *verify["readers"]):
        if model is not None:
            model["url"] = without_password(model["url"])
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
            hashes += [sha256(Path(file)) for file in _files(source)]
    hashes += [sha256(Path(file)) for file in recipe.insufficient.verify.predictions]
    without = {
        "sources": {"__all__": {"path"}},
        "insufficient": {"verify": {"predictions"}},
    }
    return digest(str(FORMAT), recipe.model_dump_json(exclude=without), *hashes)


def _files(source: Source) -> list[str]:
    """The source's file or folder, and what is read beside it."""
    from curate.sources import triviaqa

    beside = [str(passages_beside(Path(source.path)))] if source.kind == "rows" else []
    if source.kind == "triviaqa":
        beside = [str(triviaqa.evidence_folder(source.path, source.evidence))]
    return [source.path, *(one for one in beside if exists(Path(one)))]


def read_source(source: Source) -> Content:
    """Everything that one source holds."""
    from curate.sources import reading  # not at the top: every worker would load all readers

    rows, passages = reading.read(source)
    return Content(list(tqdm(rows, desc=f"read {source.name}", unit="row")), passages)


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


def clean_batch(settings: CleanSettings, workspace: Workspace, name: str, batch: list[Row]) -> None:
    """The row-wise step on one batch, as a function that any engine can send anywhere."""
    edits: Counter[str] = Counter()
    kept, dropped = clean.clean(batch, settings, edits)
    workspace.save(name, Content(kept, dropped=dropped, edits=edits))


def clean_all(
    content: Content, settings: CleanSettings, workspace: Workspace, workers: int
) -> Content:
    """Clean rows batch by batch, in ``workers`` processes; passages are cleaned alongside."""
    rows = content.rows
    batches = {
        f"clean-{start // _BATCH:05}": rows[start : start + _BATCH]
        for start in range(0, len(rows), _BATCH)
    }
    todo = {name: batch for name, batch in batches.items() if not workspace.has(name)}
    function = functools.partial(clean_batch, settings, workspace)
    with tqdm(total=len(rows), desc="clean", unit="row") as bar, mapping(workers) as run:
        bar.update(len(rows) - sum(map(len, todo.values())))
        for batch, _ in zip(todo.values(), run(function, todo, todo.values()), strict=True):
            bar.update(len(batch))
    result = Content(passages=_clean_passages(content.passages, settings))
    for name in batches:
        part = workspace.load(name)
        result.rows += part.rows
        result.dropped += part.dropped
        result.edits += part.edits
    return result


def _clean_passages(passages: list[Passage], settings: CleanSettings) -> list[Passage]:
    cleaned = [
        dataclasses.replace(passage, context=clean.clean_context(passage.context, settings))
        for passage in passages
        if len(passage.context) <= settings.max_context_chars
    ]
    return [passage for passage in cleaned if passage.context]
