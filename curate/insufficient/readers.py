"""Models' votes on a derived row: readers that answer, and a judge that is asked outright.

They come after the free checks, on rows that passed those, the judge last: it costs most.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from curate.chat import Chat, Message, default_cache
from curate.contract import told
from curate.errors import UserError
from curate.insufficient.made import answer_of
from curate.recipe import ModelSettings, VerifySettings
from curate.record import Row, read_parquet
from curate.text import holds_any

# The question of the sufficient-context autorater (Joren et al. 2025), in our own words.
JUDGE_PROMPT = (
    "Here are a context and a question. Is the context sufficient: could someone who knows "
    "nothing else about the matter give the one definite answer from what the context says? A "
    "question that presumes something false, or that could mean several things, has none. "
    "Reply yes or no.\n\nContext:\n{context}\n\nQuestion: {question}"
)

JUDGE_TOKENS = 4
Answers = dict[str, tuple[str, str]]  # row id → the question that was asked, and the answer


@dataclass(frozen=True)
class Panel:
    """Those who vote: answers read from files, readers, and a judge."""

    files: Mapping[str, "Answers"] = field(default_factory=dict)
    readers: Mapping[str, Chat] = field(default_factory=dict)
    judge: tuple[str, Chat] | None = None

    @property
    def asks(self) -> bool:
        """Whether anyone must be asked over a network."""
        return bool(self.readers) or self.judge is not None

    def votes(self, row: Row, parent: Row) -> Iterator[tuple[str, float]]:
        """Names and votes, from cheap to dear; whoever is not asked for costs nothing."""
        for name, answers in self.files.items():
            asked, answer = answers.get(row.id, ("", ""))
            # A row of an earlier build may have had the same id, and another question.
            if asked == row.question:
                yield f"reader:{name}", _agrees(answer, row, parent)
        for name, reader in self.readers.items():
            answer = answer_of(reader, row.context, row.question, row.history)
            yield f"reader:{name}", _agrees(answer, row, parent)
        if self.judge is not None:
            name, chat = self.judge
            question = told(row.history) + row.question
            messages = judge_messages(row.context, question)
            yield f"judge:{name}", verdict(chat.ask(messages, max_tokens=JUDGE_TOKENS))


def judge_messages(context: str, question: str) -> list[Message]:
    """What a judge is asked."""
    prompt = JUDGE_PROMPT.format(context=context, question=question)
    return [{"role": "user", "content": prompt}]


def verdict(said: str) -> float:
    """A judge's vote that the context suffices, from its words."""
    said = said.casefold()
    if said.startswith("yes"):
        return 1.0
    return 0.0 if said.startswith("no") else 0.5  # half a vote speaks against "insufficient"


def _agrees(answer: str, row: Row, parent: Row) -> float:
    """A reader's vote: it found the accepted answer or, to an edited question, any at all."""
    if not answer:
        return 0.0
    if row.question != parent.question:
        return 1.0
    return float(agree(answer, parent.answers))


def agree(answer: str, accepted: Sequence[str]) -> bool:
    """Whether an answer says what an accepted one says: one holds the words of the other."""
    return holds_any(answer, accepted) or holds_any(" ".join(accepted), [answer])


def panel_of(settings: VerifySettings) -> Panel:
    """The panel that a recipe asks for; answers of models are cached for good."""
    judge = settings.judge
    paths = [Path(path) for path in settings.predictions]
    files = [(p.parent.name if p.stem == "predictions" else p.stem, predictions(p)) for p in paths]
    readers = [_named(each) for each in settings.readers]
    names = [name for name, _ in (*files, *readers)]
    for name in names:
        if names.count(name) > 1:
            raise UserError(
                f"two readers are called '{name}', and one's votes would hide the other's; give "
                "models a 'name', or rename the files' folders"
            )
    return Panel(dict(files), dict(readers), None if judge is None else _named(judge))


def chat_of(settings: ModelSettings) -> Chat:
    """The model behind a recipe's address."""
    return Chat(settings.url, settings.model, default_cache())


def _named(settings: ModelSettings) -> tuple[str, Chat]:
    chat = chat_of(settings)
    return settings.name or chat.model, chat


def predictions(path: Path) -> Answers:
    """Answers by row, of a ``predictions.parquet`` as `abstain evaluate` writes it."""
    table = read_parquet(path)
    needed = ("id", "question", "prediction")
    for name in needed:
        if name not in table.column_names:
            raise UserError(f"{path}: no column '{name}'; a reader's file has {', '.join(needed)}")
    columns = (table.column(name).to_pylist() for name in needed)
    return {name: (asked, answer) for name, asked, answer in zip(*columns, strict=True)}
