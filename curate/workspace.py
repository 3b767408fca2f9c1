"""The finished steps of a build that is under way, on disk, so that a kill loses little."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from curate import record
from curate.errors import os_error
from curate.files import read_json, write_json, write_text
from curate.record import Dropped, Passage, Row


@dataclass
class Content:
    """What a step gives: rows, passages, the rows that it left out, and what else it counted."""

    rows: list[Row] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    edits: Counter[str] = field(default_factory=Counter)


class Workspace:
    """A folder of finished steps, valid for one fingerprint of recipe and sources."""

    def __init__(self, folder: Path, fingerprint: str, fresh: bool = False) -> None:
        self.folder = folder
        mark = folder / "fingerprint"
        try:
            same = mark.exists() and mark.read_text(encoding="utf-8") == fingerprint
            if folder.exists() and (fresh or not same):
                shutil.rmtree(folder)  # steps of another recipe, or of other sources
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise os_error("write", folder, error) from error
        write_text(mark, fingerprint)

    def has(self, step: str) -> bool:
        """Whether the step is finished: its folder appears in one move, whole."""
        return (self.folder / step).is_dir()

    def save(self, step: str, content: Content) -> None:
        """Store a finished step."""
        half = self.folder / f"{step}.half"
        try:
            shutil.rmtree(half, ignore_errors=True)
            half.mkdir()
            record.write_table(record.to_table(content.rows), half / "rows.parquet")
            record.write_table(
                record.passages_to_table(content.passages), half / "passages.parquet"
            )
            record.write_table(record.dropped_to_table(content.dropped), half / "dropped.parquet")
            write_json(half / "edits.json", content.edits)
            half.replace(self.folder / step)
        except OSError as error:
            raise os_error("write", half, error) from error

    def load(self, step: str) -> Content:
        """Read a finished step back."""
        folder = self.folder / step
        return Content(
            record.from_table(record.read_table(folder / "rows.parquet")),
            record.passages_from_table(
                record.read_table(folder / "passages.parquet", record.PASSAGE_SCHEMA)
            ),
            record.dropped_from_table(
                record.read_table(folder / "dropped.parquet", record.DROPPED_SCHEMA)
            ),
            Counter(read_json(folder / "edits.json")),
        )

    def once(self, step: str, make: Callable[[], Content]) -> Content:
        """The step's result: read back where it is finished, else made and stored."""
        if self.has(step):
            return self.load(step)
        content = make()
        self.save(step, content)
        return content
