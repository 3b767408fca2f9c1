"""From passages to verified rows: write, check the texts, look for duplicates, ask the reader."""

import asyncio
import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from tqdm import tqdm

from curate.dedup import context_id, dedup
from curate.errors import UserError
from curate.generate import checks
from curate.generate.llm import prompts, verify
from curate.generate.llm.asking import (
    BudgetSpent,
    Malformed,
    Model,
    NotAnswered,
    Request,
    Spending,
    Who,
)
from curate.generate.llm.passages import Source
from curate.record import NOT_A_SPAN, Dropped, Row, digest

METHOD = "llm"


@dataclass(frozen=True)
class Wanted:
    """What is asked for: pairs and unanswerable questions a passage, and the reasons for those."""

    pairs: int = 3
    unanswerable: int = 2
    reasons: Sequence[str] = ("evidence_missing", "false_premise")
    seed: int = 13


@dataclass
class Written:
    """The rows, those that failed with the reason, and what else became of the passages."""

    rows: list[Row] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # requests that gave nothing, in words
    failed: Counter[str] = field(default_factory=Counter)  # by kind: malformed, not_answered
    waiting: int = 0  # passages that the budget did not see to their end

    def add(self, other: "Written") -> None:
        """Add what another passage gave."""
        self.rows += other.rows
        self.dropped += other.dropped
        self.faults += other.faults
        self.failed += other.failed


def requests(number: int, source: Source, wanted: Wanted) -> Iterator[tuple[str, int, Request]]:
    """What is asked about a passage: reason (empty for pairs), count, and the request itself.

    The reasons take turns over the passages, so that each comes up as often as the others.
    """
    context = source.passage.context
    if wanted.pairs:
        yield "", wanted.pairs, prompts.pairs(context, wanted.pairs, wanted.seed)
    first = number * wanted.unanswerable
    turns = range(first, first + wanted.unanswerable)
    counts = Counter(wanted.reasons[turn % len(wanted.reasons)] for turn in turns)
    for reason, count in counts.items():
        yield reason, count, prompts.without(context, reason, count, wanted.seed)


async def write(
    sources: Sequence[Source],
    wanted: Wanted,
    writer: Who,
    reader: Who,
    spending: Spending,
    concurrency: int,
) -> Written:
    """Rows of all passages, in their order; the ``reader`` verifies what the ``writer`` wrote.

    Where the budget is spent no new request is made, and what is finished is given.
    """
    results: dict[int, Written] = {}
    todo = (numbered for numbered in enumerate(sources))
    finished = 0
    async with AsyncExitStack() as stack:
        writes = await stack.enter_async_context(Model(writer, spending))
        reads = writes
        if reader != writer:
            reads = await stack.enter_async_context(Model(reader, spending))

        async def work(bar: Any) -> None:
            nonlocal finished
            for number, source in todo:
                found = results[number] = Written()
                try:
                    await _passage(number, source, wanted, writes, reads, found)
                except BudgetSpent:
                    todo.close()  # what was verified until now is good; the rest waits
                    return
                except UserError as error:
                    # What others have asked meanwhile is paid for: it is waited for, and kept.
                    spending.stopped = spending.stopped or error
                    todo.close()
                    return
                finished += 1
                bar.update()
                bar.set_postfix(tokens=spending.responses.paid.total, refresh=False)

        with tqdm(total=len(sources), desc="passages", unit="passage") as bar:
            await asyncio.gather(*(work(bar) for _ in range(concurrency)))
    if spending.stopped is not None:
        raise spending.stopped
    written = Written(waiting=len(sources) - finished)
    for number in sorted(results):
        written.add(results[number])
    return written


async def _passage(
    number: int, source: Source, wanted: Wanted, writer: Model, reader: Model, found: Written
) -> None:
    candidates: list[Row] = []
    for reason, _, request in requests(number, source, wanted):
        try:
            if reason:
                asked = await writer.ask(request, prompts.read_questions)
                said = [(question, "") for question in asked]
            else:
                said = await writer.ask(request, prompts.read_pairs)
        except (Malformed, NotAnswered) as error:
            _failed(found, source, error)
            continue
        for ordinal, (question, answer) in enumerate(said):
            candidates.append(_row(source, question, answer, reason, ordinal))
    for row in _fresh(candidates, source, found):
        try:
            fault, detail = await verify.fault_of_models(row, reader)
        except (Malformed, NotAnswered) as error:
            _failed(found, source, error)
            fault, detail = "not_verified", str(error)
        if fault:
            found.dropped.append(Dropped(row, verify.STEP, fault, detail))
        else:
            found.rows.append(row)


def _failed(found: Written, source: Source, error: Exception) -> None:
    kind = "malformed" if isinstance(error, Malformed) else "not_answered"
    found.failed[kind] += 1
    found.faults.append(f"{source.where}: {kind}: {error}")


def _fresh(candidates: Sequence[Row], source: Source, found: Written) -> list[Row]:
    """Those whose texts are in order and that nobody has asked before about this passage."""
    sound: list[Row] = []
    for row in candidates:
        fault, detail = checks.fault_of_text(row)
        if fault:
            found.dropped.append(Dropped(row, verify.STEP, fault, detail))
        else:
            sound.append(row)
    # Clusters of contexts tell nothing here: all rows are about one passage.
    known = [dataclasses.replace(row, context=source.passage.context) for row in source.known]
    kept, dropped = dedup([*known, *sound], clusters={})
    ours = {row.id for row in sound}
    found.dropped += [one for one in dropped if one.row.id in ours]
    return [row for row in kept if row.id in ours]


def _row(source: Source, question: str, answer: str, reason: str, ordinal: int) -> Row:
    passage = source.passage
    text, start = checks.span_of(passage.context, answer) or (answer, NOT_A_SPAN)
    return Row(
        question=question,
        context=passage.context,
        answers=[] if reason else [text],
        answer_starts=[] if reason else [start],
        sufficient=not reason,
        reason=reason,
        method=METHOD,
        document_id=passage.document_id,
        context_id=passage.context_id or context_id(passage.context),
        fold=passage.fold,
        source=passage.source,
        source_id=digest(passage.context, reason, question),
        url=passage.url,
        title=passage.title,
        heading=passage.heading,
        licence=passage.licence,
        retrieved_at=passage.retrieved_at,
    ).stamped(ordinal)
