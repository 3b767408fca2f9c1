"""What a push sends: the rows of a file or a data set, in their order, with what is guessed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from curate import record
from curate.annotate.label_studio import predictions as guesses
from curate.annotate.label_studio.choose import First, choose, overlap_first
from curate.annotate.label_studio.predictions import Guess, Prediction
from curate.annotate.label_studio.tasks import task_of
from curate.dataset import ANNOTATE
from curate.errors import UserError
from curate.files import exists
from curate.record import Row


def tasks(
    path: Path,
    first: First,
    limit: int | None,
    runs: Sequence[Path],
    gold: Path | None,
    overlap: int,
    overlap_share: float,
    seed: int,
) -> list[dict[str, Any]]:
    """The rows to push, most telling first, each with its predictions."""
    answers = {name_of(run): guesses.read_run(run) for run in runs}
    if len(answers) < len(runs):
        raise UserError("--predictions: two runs have the same name; rename one's folder")
    merged: dict[str, Guess] = {}
    for guessed in answers.values():
        merged = guessed | merged  # the first run given decides
    known = record.read_rows(gold) if gold is not None else []
    sure = {row.id for row in known}
    candidates = {row.id: row for row in rows_to_send(path) if row.id not in sure}
    rows = _mixed(choose(list(candidates.values()), first, merged, seed, limit), known)
    if overlap > 1:
        rows = overlap_first(rows, overlap_share, seed)
    # A vote or label sent along with a known row would show what annotators are measured by.
    return [task_of(row, _of(row, answers, votes=row.id not in sure)) for row in rows]


def name_of(path: Path) -> str:
    """A run's name: that of the folder with its predictions."""
    if path.is_file() and path.stem != "predictions":
        return path.stem
    return (path.parent if path.is_file() else path).resolve().name


def rows_to_send(path: Path) -> list[Row]:
    """A file's rows, or a data set's: its splits, and what waits for a label."""
    rows = record.read_rows(path)
    waiting = path / f"{ANNOTATE}.parquet"
    if path.is_dir() and exists(waiting):
        rows += record.read_rows(waiting)
    return rows


def _mixed(rows: list[Row], known: list[Row]) -> list[Row]:
    """Known rows at even distances among the others."""
    if not known:
        return rows
    step = len(rows) / len(known)
    placed = [(n + 0.5, row) for n, row in enumerate(rows)]
    placed += [(n * step, row) for n, row in enumerate(known)]
    return [row for _, row in sorted(placed, key=lambda one: one[0])]


def _of(row: Row, answers: dict[str, dict[str, Guess]], votes: bool) -> list[Prediction]:
    found = [guesses.of_votes(row)] if votes else []
    found += [guesses.of_run(name, run)(row) for name, run in answers.items()]
    return [one for one in found if one is not None]
