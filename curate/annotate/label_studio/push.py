"""Rows into a project: what is new is added, what has changed replaced, the rest left alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tqdm import tqdm

from curate.annotate.label_studio import config
from curate.annotate.label_studio.server import Seen, Server
from curate.annotate.label_studio.tasks import PUSHED, ROW, replacing

_BATCH = 250  # tasks a request: what a kill can leave undone of the bar's last step


@dataclass(frozen=True)
class Page:
    """How a project has its tasks judged."""

    overlap: int = 1  # annotators for each of the first tasks, which are ...
    overlap_share: float = 1.0  # ... this share of all
    prelabel: str = ""  # whose predictions annotators begin with


@dataclass
class Pushed:
    """What a push did."""

    project: int
    address: str
    added: int = 0
    changed: int = 0
    unchanged: int = 0
    duplicates: dict[str, list[int]] = field(default_factory=dict)  # rows with several tasks
    foreign: int = 0  # tasks that we did not make
    page_changes: list[str] = field(default_factory=list)  # made by hand

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def push(
    server: Server,
    name: str,
    tasks: Sequence[dict[str, Any]],
    page: Page,
    reset_page: bool = False,
) -> Pushed:
    """Bring a project to hold ``tasks``, in their order; it is made where there is none.

    What the project holds is read from the server and not remembered, so that a push killed
    halfway is finished by the same one, and a second one changes nothing.
    """
    project = server.find(name) or server.create(
        name, config.text(), "Does the passage answer the question? Made by `curate annotate push`."
    )
    if reset_page:
        project = server.update(project.id, label_config=config.text())
    link = f"{server.address}/projects/{project.id}"
    done = Pushed(project.id, link)
    config.check(project.label_config, link)
    done.page_changes = config.changed(project.label_config, link)
    there: dict[str, list[Seen]] = defaultdict(list)
    for seen in server.scan(project.id, with_data=True):
        there[str(seen.data.get(ROW, ""))].append(seen)
    done.foreign = len(there.pop("", []))
    wanted = {task["data"][ROW]: task for task in tasks}
    new = [task for number, task in wanted.items() if number not in there]
    _change(server, project.id, wanted, there, done)
    with tqdm(total=len(new), desc="tasks added", unit="task") as bar:
        for start in range(0, len(new), _BATCH):
            batch = new[start : start + _BATCH]
            server.add(project.id, batch)
            done.added += len(batch)
            bar.update(len(batch))
    # Last, since the server deals overlap out among the tasks that it has.
    guesses = {one["model_version"] for task in tasks for one in task["predictions"]}
    _settle(server, project, page, page.prelabel if page.prelabel in guesses else "")
    return done


def _change(
    server: Server,
    project: int,
    wanted: Mapping[str, dict[str, Any]],
    there: Mapping[str, list[Seen]],
    done: Pushed,
) -> None:
    known = [
        (wanted[number], seen)
        for number, all_ in there.items()
        for seen in all_
        if number in wanted
    ]
    done.duplicates = {
        number: [one.id for one in all_]
        for number, all_ in there.items()
        if len(all_) > 1 and number in wanted
    }
    changed = {
        seen.id: (new, seen) for new, seen in known if seen.data.get(PUSHED) != new["data"][PUSHED]
    }
    done.unchanged = len(known) - len(changed)
    with tqdm(total=len(changed), desc="tasks changed", unit="task") as bar:
        for batch in server.tasks(project, list(changed)):
            for old in batch:
                new, seen = changed[old["id"]]
                server.change(seen.id, replacing(seen, new, old.get("meta") or {}))
                done.changed += 1
                bar.update()


def _settle(server: Server, project: Any, page: Page, prelabel: str) -> None:
    wanted = {
        "maximum_annotations": page.overlap,
        "overlap_cohort_percentage": round(100 * page.overlap_share),
        "show_overlap_first": page.overlap > 1,
        "show_collab_predictions": bool(prelabel),
        # The server shows predictions of one version alone, and must have some of it by now.
        "model_version": prelabel,
        "sampling": "Sequential sampling",
    }
    now = {name: getattr(project, name) for name in wanted}
    now["model_version"] = now["model_version"] or ""
    different = {name: value for name, value in wanted.items() if now[name] != value}
    if different:
        server.update(project.id, **different)
