"""From results to rows: whose answers count, what they say, and how far they agree."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from curate import record
from curate.annotate.adjudicate import adjudicate
from curate.annotate.agreement import agreement
from curate.annotate.crowd import batch as batches
from curate.annotate.crowd import labels, questions, results, workers
from curate.annotate.crowd.batch import Batch
from curate.annotate.crowd.results import Assignment
from curate.errors import UserError


def gather(
    paths: Sequence[Path], published: Path, out: Path, least_right: float, least_known: int
) -> dict[str, Any]:
    """Write rows, dropped rows and workers beside each other; returns what there was.

    Raises `UserError` where the results are of another batch.
    """
    batch = batches.load(published)
    everything = results.read(paths)
    known = _known(everything, batch, published)
    judged = workers.judgements(one for one in known if one.task in batch.rows)
    people = workers.of(known, batch.gold, judged)
    failed = {one.id for one in people if one.fails(least_right, least_known)}
    rejected = [one for one in known if one.status == "Rejected"]
    counted = [one for one in known if one.status != "Rejected" and one.worker not in failed]
    asked = [one for one in counted if one.task in batch.rows]
    left_out = {
        "of no task of the batch": len(everything) - len(known),
        "rejected": len(rejected),
        "of workers who failed": len(known) - len(rejected) - len(counted),
    }
    if batch.task == "label":
        labelled = adjudicate(batch.rows, labels.said(batch.rows, asked), labels.STEP)
        rows, dropped, became = labelled.rows, labelled.dropped, labelled.counts
    else:
        rows, dropped = questions.questions(batch.rows, asked)
        became = Counter("sufficient" if row.sufficient else "insufficient" for row in rows)
    record.write_table(record.to_table(rows), out)
    record.write_table(record.dropped_to_table(dropped), out.with_suffix(".dropped.parquet"))
    workers.save(people, out.with_suffix(".workers.csv"))
    return {
        "assignments": len(everything),
        "workers": len(people),
        "failed": sorted(failed),
        "left_out": {name: count for name, count in left_out.items() if count},
        "agreement": asdict(agreement(workers.judgements(asked))),
        "rows": len(rows),
        "labels": dict(became),
        "dropped": dict(Counter(one.drop_reason for one in dropped)),
    }


def _known(everything: Sequence[Assignment], batch: Batch, path: Path) -> list[Assignment]:
    known = [one for one in everything if one.task in batch.rows or one.task in batch.gold]
    if everything and not known:
        first = everything[0]
        raise UserError(f"{first.where}: task '{first.task}' is none of {path}: another batch's?")
    return known
