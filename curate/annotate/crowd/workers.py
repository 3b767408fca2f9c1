"""What each worker's answers are worth: those to tasks whose answer is known, and agreement."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from curate.annotate.agreement import Judged, with_others
from curate.annotate.crowd.labels import judgement
from curate.annotate.crowd.results import Assignment
from curate.annotate.said import is_right
from curate.files import replacing
from curate.record import Row

QUALIFICATION = "grounded-abstain"


@dataclass
class Worker:
    """One worker's record."""

    id: str
    assignments: int = 0
    known: int = 0  # tasks of the qualification set
    right: int = 0
    same: int = 0  # agreeing with the majority of the others
    compared: int = 0

    def fails(self, least_right: float, least_known: int) -> bool:
        """Whether enough is known of the worker, and it is not good enough."""
        return self.known >= least_known and self.right < least_right * self.known


def of(assignments: Iterable[Assignment], gold: Mapping[str, Row], judged: Judged) -> list[Worker]:
    """All workers, by id; ``judged`` are their yes and no by task."""
    workers: dict[str, Worker] = {}
    for assignment in assignments:
        worker = workers.setdefault(assignment.worker, Worker(assignment.worker))
        worker.assignments += 1
        if assignment.task in gold:
            worker.known += 1
            known = gold[assignment.task]
            worker.right += is_right(judgement(assignment, known.context), known)
    for worker in workers.values():
        worker.same, worker.compared = with_others(judged, worker.id)
    return sorted(workers.values(), key=lambda worker: worker.id)


def judgements(assignments: Iterable[Assignment]) -> Judged:
    """Yes or no, by task and worker."""
    judged: dict[str, dict[str, str]] = defaultdict(dict)
    for assignment in assignments:
        if assignment.answers.get("sufficient") in ("yes", "no"):
            judged[assignment.task][assignment.worker] = assignment.answers["sufficient"]
    return judged


def save(workers: Iterable[Worker], path: Path) -> None:
    """A CSV that the site's page of workers takes: the score of a qualification, 0 to 100."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        header = ("assignments", "known", "right", "compared", "same")
        writer.writerow(("Worker ID", f"UPDATE-{QUALIFICATION}", *header))
        for one in workers:
            score = round(100 * one.right / one.known) if one.known else ""
            counts = (one.assignments, one.known, one.right, one.compared, one.same)
            writer.writerow((one.id, score, *counts))
