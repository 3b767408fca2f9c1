"""The queue in Label Studio: what waits becomes tasks, and what annotators say becomes answers."""

from dataclasses import dataclass
from pathlib import Path

from abstain.queue import Queue, Refused, Reply
from abstain.queue_export import row_of
from curate.annotate import annotations
from curate.annotate.adjudicate import adjudicate
from curate.annotate.annotations import Annotation
from curate.annotate.label_studio import pull as pulling
from curate.annotate.label_studio.push import Page, Pushed
from curate.annotate.label_studio.push import push as push_tasks
from curate.annotate.label_studio.server import Server
from curate.annotate.label_studio.tasks import task_of

ANNOTATORS = "Label Studio"


@dataclass
class Answered:
    """What a pull has closed."""

    answered: int = 0
    rejected: int = 0
    undecided: int = 0  # annotators are divided
    closed_before: int = 0  # somebody else was faster

    def to_json(self) -> dict[str, int]:
        """For a program."""
        return dict(vars(self))


def push(queue: Queue, server: Server, project: str) -> Pushed:
    """Make tasks of what waits; nothing goes along that tells what the model said."""
    tasks = [task_of(row_of(item), []) for item in queue.items("waiting")]
    return push_tasks(server, project, tasks, Page())


def pull(queue: Queue, server: Server, project: str, out: Path) -> Answered:
    """Fetch what annotators said, and answer the items that it decides."""
    pulling.pull(server, project, out)
    return take_in(queue, annotations.read(out))


def take_in(queue: Queue, found: list[Annotation]) -> Answered:
    """Answer items by what annotators say of them; what they are divided on stays open."""
    done = Answered()
    said, rows = annotations.said_of(found), annotations.rows_of(found)
    result = adjudicate({number: rows[number] for number in said}, said, ANNOTATORS)
    for row in result.rows:
        if row.sufficient is None:
            done.undecided += 1
            continue
        reply = Reply(row.sufficient, tuple(row.answers), row.reason)
        try:
            queue.answer(row.source_id, ANNOTATORS, reply)
            done.answered += 1
        except Refused:
            done.closed_before += 1
    for dropped in result.dropped:
        try:
            queue.reject(dropped.row.source_id, ANNOTATORS, dropped.detail or dropped.drop_reason)
            done.rejected += 1
        except Refused:
            done.closed_before += 1
    return done
