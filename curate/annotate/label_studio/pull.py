"""What people said since the last time, and all of it as a table."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from curate.annotate import annotations as tables
from curate.annotate.annotations import Annotation, Status
from curate.annotate.label_studio import config, journal, results
from curate.annotate.label_studio.config import Controls
from curate.annotate.label_studio.journal import Task
from curate.annotate.label_studio.server import Server
from curate.annotate.label_studio.tasks import row_of, stale
from curate.annotate.said import Said

_NOTHING = Said(None)


@dataclass
class Pulled:
    """What a pull brought, and what there is now."""

    tasks: int = 0  # that were fetched
    new: int = 0  # annotations
    changed: int = 0
    deleted: int = 0
    annotations: dict[str, int] = field(default_factory=dict)  # of all pulls, by status
    invalid: dict[str, int] = field(default_factory=dict)  # by what is wrong
    annotators: int = 0
    rows: int = 0
    foreign: int = 0  # annotations of tasks that `push` did not make; in the journal alone
    torn: int = 0  # lines of the journal that a crash cut off
    page_changes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def beside(out: Path) -> Path:
    """Where the raw JSON of a table of annotations lies."""
    return out.with_suffix(".journal.jsonl")


def pull(server: Server, name: str, out: Path) -> Pulled:
    """Fetch what is new into the journal, then write the table of everything to ``out``.

    Each batch is on the disk before the next is asked for: a pull killed halfway goes on there.
    """
    project = server.project(name)
    link = f"{server.address}/projects/{project.id}"
    done = Pulled(page_changes=config.changed(project.label_config, link))
    known, _ = journal.read(beside(out))
    fetch = []
    for seen in server.scan(project.id, with_data=False):
        task = known.get((server.address, project.id, seen.id))
        before = task.listed if task else {}
        # An event may have told of one that is gone by now, and that no pull ever listed.
        gone = task.annotations.keys() - task.deleted - seen.annotations.keys() if task else set()
        if seen.annotations != before or gone:
            fetch.append(seen.id)
            done.new += len(seen.annotations.keys() - before.keys())
            done.deleted += len((before.keys() - seen.annotations.keys()) | gone)
            both = before.keys() & seen.annotations.keys()
            done.changed += sum(before[number] != seen.annotations[number] for number in both)
    with tqdm(total=len(fetch), desc="tasks pulled", unit="task") as bar:
        for batch in server.tasks(project.id, fetch):
            batch = [{**task, "project": project.id} for task in batch]
            journal.append(beside(out), journal.TASK, batch, server.address)
            done.tasks += len(batch)
            bar.update(len(batch))
    write(out, config.readable(project.label_config, link), server.people(), done)
    return done


def write(out: Path, controls: Controls, people: Mapping[int, str], done: Pulled) -> None:
    """The journal as a table."""
    tasks, done.torn = journal.read(beside(out))
    found: list[Annotation] = []
    for (_, project, _), task in sorted(tasks.items()):
        of_task = list(annotations_of(task, project, controls, people))
        done.foreign += 0 if of_task else len(task.annotations)
        found += of_task
    found = superseded(found)
    tables.write(found, out)
    done.annotations = tables.statuses(found)
    done.invalid = dict(Counter(one.detail for one in found if one.status == "invalid"))
    counting = tables.counting(found)
    done.annotators = len({one.annotator for one in counting})
    done.rows = len({one.row.id for one in counting})


def annotations_of(
    task: Task, project: int, controls: Controls, people: Mapping[int, str]
) -> Iterator[Annotation]:
    """The annotations of one task; none where it is not ours."""
    row = row_of(task.latest)
    if row is None:
        return
    before = stale(task.latest)
    for number, raw in sorted(task.annotations.items()):
        status: Status = "counts"
        said, detail = _NOTHING, ""
        try:
            said = results.read(raw.get("result"), row.context, controls)
        except results.Invalid as problem:
            status, detail = "invalid", str(problem)
        if raw.get("was_cancelled"):
            status, detail = "skipped", ""
        elif number in task.deleted:
            status, detail = "deleted", ""
        elif number in before and raw["updated_at"] <= before[number]:
            status, detail = "stale", "the row's texts were changed after it"
        yield Annotation(
            row=row,
            annotator=_person(raw, people),
            said=said,
            annotated_at=raw["updated_at"],
            lead_time=raw.get("lead_time"),
            status=status,
            detail=detail,
            project_id=project,
            task_id=task.latest["id"],
            annotation_id=number,
        )


def _person(raw: Mapping[str, Any], people: Mapping[int, str]) -> str:
    """Who made an annotation: an export has the number alone, a task the whole user."""
    by = raw.get("completed_by")
    if isinstance(by, dict):
        return str(by.get("email") or by.get("id"))
    return people.get(by, f"user {by}") if isinstance(by, int) else "nobody"


def superseded(found: list[Annotation]) -> list[Annotation]:
    """Of several that one person made of one row, only the last counts."""
    last: dict[tuple[str, str], Annotation] = {}
    for one in sorted(
        tables.counting(found), key=lambda one: (one.annotated_at, one.annotation_id)
    ):
        last[one.row.id, one.annotator] = one
    detail = "the same person said something later"
    return [
        one
        if one.status != tables.COUNTS or last[one.row.id, one.annotator] is one
        else replace(one, status="superseded", detail=detail)
        for one in found
    ]
