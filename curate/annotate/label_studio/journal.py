"""Everything that ever came from a server, as it came: a file of JSON lines, only appended to.

What people said can be read from it again by a better reader; what was deleted or overwritten on
the server, or lost with it, is still here. Pulling and the webhook's receiver write to one file.
"""

import datetime
import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from curate.errors import os_error
from curate.files import exists, parse_json

TASK, EVENT = "task", "webhook"
DELETED = "ANNOTATIONS_DELETED"  # the event that brings no annotation, only numbers
Key = tuple[str, int, int]  # server, project and task


@dataclass
class Task:
    """A task as it came last, and every annotation of it that ever came."""

    latest: dict[str, Any]
    annotations: dict[int, dict[str, Any]] = field(default_factory=dict)  # each as it came last
    deleted: set[int] = field(default_factory=set)
    listed: dict[int, str] = field(default_factory=dict)  # those of the last pull, when changed


def append(path: Path, kind: str, things: Iterable[dict[str, Any]], address: str) -> None:
    """Keep things; they are on the disk when this returns."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    lines = [
        json.dumps({"at": now, "server": address, kind: thing}, ensure_ascii=False).encode()
        for thing in things
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the other writer's lines stay whole
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":  # a crash cut a line off
                    lines.insert(0, b"")
            file.write(b"".join(line + b"\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise os_error("write", path, error) from error


def read(path: Path) -> tuple[dict[Key, Task], int]:
    """The tasks, and how many lines could not be read: at most one for each crash."""
    tasks: dict[Key, Task] = {}
    torn = 0
    for entry in _entries(path):
        if entry is None:
            torn += 1
        elif TASK in entry:
            _take_task(tasks, entry["server"], entry[TASK])
        elif EVENT in entry:
            _take_event(tasks, entry["server"], entry[EVENT])
    return tasks, torn


def _entries(path: Path) -> Iterator[dict[str, Any] | None]:
    if not exists(path):
        return
    try:
        with path.open("rb") as file:
            for line in file:
                if not line.strip():
                    continue
                try:
                    entry = parse_json(line.decode("utf-8"))
                    yield entry if isinstance(entry, dict) else None
                except ValueError:
                    yield None
    except OSError as error:
        raise os_error("read", path, error) from error


def _take_task(tasks: dict[Key, Task], server: str, raw: dict[str, Any]) -> None:
    task = tasks.setdefault((server, raw["project"], raw["id"]), Task(raw))
    task.latest = raw
    now = {one["id"]: one for one in raw.get("annotations") or []}
    task.deleted |= task.annotations.keys() - now.keys()
    task.deleted -= now.keys()
    task.annotations |= now
    task.listed = {number: one["updated_at"] for number, one in now.items()}


def _take_event(tasks: dict[Key, Task], server: str, payload: dict[str, Any]) -> None:
    """An event brings one annotation with its task, or names those that were deleted."""
    if payload.get("action") == DELETED:
        gone = {one["id"] for one in payload.get("annotations") or []}
        for (of, _, _), task in tasks.items():
            if of == server:  # another server's annotations have the same numbers
                task.deleted |= gone & task.annotations.keys()
        return
    annotation, raw = payload["annotation"], payload["task"]
    project = payload["project"]["id"]
    raw = {**raw, "project": project}
    task = tasks.setdefault((server, project, raw["id"]), Task(raw))
    known = task.annotations.get(annotation["id"])
    # Deliveries can overtake one another, and the pull that brought the same.
    if known is None or known["updated_at"] <= annotation["updated_at"]:
        task.annotations[annotation["id"]] = annotation
        task.latest = raw
        task.deleted.discard(annotation["id"])
