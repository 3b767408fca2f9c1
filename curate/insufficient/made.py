"""What every method is given and what it gives back."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from curate.chat import Chat
from curate.contract import Contract
from curate.insufficient.passages import PassageIndex
from curate.record import Row

READER_TOKENS = 64  # of an answer under the common prompt


@dataclass(frozen=True)
class World:
    """What a method may look at besides its row: the passages around the row, and a seed."""

    index: PassageIndex
    seed: int
    count: int = 3  # passages of a context that is made of several
    swap_from: str = "any"  # "same_document", "other_documents"
    swap_rank: int = 1
    writer: Chat | None = None  # a language model that writes and judges
    reader: Chat | None = None  # one that answers questions

    def write(self, prompt: str, max_tokens: int = 128) -> str:
        """What the writer says to a prompt."""
        if self.writer is None:
            raise RuntimeError("a method that needs a writer was tried without one")
        return self.writer.ask([{"role": "user", "content": prompt}], max_tokens, self.seed)

    def read(self, row: Row, context: str) -> str:
        """The reader's answer to a row's question on another context; empty where it abstains."""
        if self.reader is None:
            raise RuntimeError("a method that needs a reader was tried without one")
        return answer_of(self.reader, context, row.question, row.history)

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
    borrowed: Sequence[str] = ()  # contexts of others, whose licences count too

    @property
    def sufficient(self) -> bool:
        """Whether the context holds the answer."""
        return not self.reason


def answer_of(
    reader: Chat, context: str, question: str, history: Sequence[dict[str, str]] = ()
) -> str:
    """What a reader answers under the common prompt; empty where it abstains."""
    contract = Contract()
    answer = reader.ask(contract.messages(context, question, history), max_tokens=READER_TOKENS)
    return "" if contract.is_abstention(answer) else answer


Maker = Callable[[Row, World], Made | None]
