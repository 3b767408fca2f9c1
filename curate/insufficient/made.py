"""What every method is given and what it gives back."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from curate.insufficient.passages import PassageIndex
from curate.record import Row


@dataclass(frozen=True)
class World:
    """What a method may look at besides its row: the passages of the row's own fold, and a seed."""

    index: PassageIndex
    seed: int
    count: int = 3  # passages of a context that is made of several
    swap_from: str = "any"  # "same_document", "other_documents"
    swap_rank: int = 1

    def random(self, method: str, row: Row) -> random.Random:
        """Draws that hang on the row alone, whatever the order of the rows."""
        return random.Random(f"{self.seed}/{method}/{row.id}")


@dataclass(frozen=True)
class Made:
    """The parts of a derived row that are its own; the others are its parent's."""

    reason: str  # a reason code; empty where the context still suffices
    intensity: float  # 0 to 1: how hard the row was pushed, or how near a miss it is
    context: str | None = None  # None: the parent's
    question: str | None = None  # None: the parent's
    answers: Sequence[tuple[str, int]] = field(default=())  # with their starts, where sufficient

    @property
    def sufficient(self) -> bool:
        """Whether the context holds the answer."""
        return not self.reason


Maker = Callable[[Row, World], Made | None]
