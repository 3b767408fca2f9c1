"""Which certifications calibration rows have served for: trying until one holds is no proof.

The ledger lies in a run's ``abstain.json`` and outlives its training anew. It knows rows by name,
so that leaving a few out does not make them fresh. It cannot know of other runs: whoever certifies
several on the same rows and keeps the one that passes has tried as often.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from curate.errors import UserError
from curate.record import Row, digest


@dataclass(frozen=True)
class Entry:
    """One certification: what was asked of which rows."""

    request: str  # hash of everything that decides its outcome
    target: str  # in words
    rows: tuple[str, ...]  # short hashes

    @classmethod
    def of(cls, target: str, rows: Sequence[Row], *decisive: str) -> "Entry":
        """A certification on ``rows``; ``decisive`` is what else decides its outcome."""
        named = tuple(sorted(digest(row.id, row.content_hash)[:8] for row in rows))
        return cls(digest(target, *named, *decisive), target, named)


@dataclass(frozen=True)
class Ledger:
    """All certifications of a run, the oldest first."""

    entries: tuple[Entry, ...] = ()

    def before(self, entry: Entry) -> list[Entry]:
        """Other certifications that have seen rows of this one."""
        rows = set(entry.rows)
        return [e for e in self.entries if e.request != entry.request and rows & set(e.rows)]

    def with_entry(self, run: Path, entry: Entry, again: bool) -> "Ledger":
        """With a new certification; raises `UserError` where its rows have served for another.

        The same request on the same rows is one certification however often it is made.
        """
        if entry in self.entries:
            return self
        if (before := self.before(entry)) and not again:
            raise UserError(
                f"{run}: its calibration rows have been used for a certification "
                f"({'; '.join(e.target for e in before)}). Trying again until one holds would void "
                "the promise; use fresh rows, or --again, which says so wherever it is promised"
            )
        return Ledger((*self.entries, entry))

    def tries(self, entry: Entry) -> int:
        """How many certifications the entry's rows have served for, itself among them."""
        return len(self.before(entry)) + (entry in self.entries)

    def to_json(self) -> list[dict[str, Any]]:
        """As stored with a run."""
        return [asdict(entry) for entry in self.entries]

    @classmethod
    def from_json(cls, value: list[dict[str, Any]]) -> "Ledger":
        """What `to_json` stored."""
        return cls(tuple(Entry(e["request"], e["target"], tuple(e["rows"])) for e in value))
