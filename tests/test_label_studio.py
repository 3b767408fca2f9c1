"""The loop with a real Label Studio: rows go, people with accounts of their own annotate, it all
comes back; and what can go wrong on the way."""

import json
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from curate_helpers import make_row
from label_studio import Studio, by_task, choose, judge, mark, no, rows_of, saved, write, yes

from curate import record
from curate.annotate import annotations
from curate.annotate.annotations import Annotation

PEOPLE = ("ann", "ben", "cleo")


def mistakes(name: str, number: int) -> bool:
    """Whether someone errs on a task: Ann never, Ben on one of 5, Cleo on one of 3."""
    return {"ann": False, "ben": number % 5 == 0, "cleo": number % 3 == 0}[name]


def one_of(out: Path, number: int) -> Annotation:
    return next(one for one in annotations.read(out) if one.annotation_id == number)


def test_a_thousand_rows_go_three_people_annotate_and_rows_come_back(
    label_studio: Studio, tmp_path: Path
) -> None:
    rows = rows_of(1000, "round")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "round", "--overlap", 3)
    push = (*push, "--overlap-share", 0.1)
    assert label_studio.json(*push)["added"] == 1000
    again = label_studio.json(*push)
    assert (again["added"], again["changed"], again["unchanged"]) == (0, 0, 1000)

    project = label_studio.owner.project("round")
    tasks = label_studio.owner.tasks(project["id"])
    several = [task for task in tasks if task["overlap"] == 3]
    assert len(several) == 100 and Counter(task["overlap"] for task in tasks)[1] == 900
    assert not project["show_collab_predictions"]
    labels = {row.id: bool(row.sufficient) for row in rows}
    said: dict[str, dict[str, bool]] = {}
    for name in PEOPLE:
        for number, task in enumerate(several[:40]):
            row = task["data"]["row"]
            said.setdefault(row, {})[name] = labels[row] != mistakes(name, number)
            judge(label_studio.person(name), task, said[row][name], seconds=7.0 + number)

    pull = ("annotate", "pull", "--project", "round", "--out", out)
    pulled = label_studio.json(*pull)
    assert pulled["annotations"] == {"counts": 120} and pulled["tasks"] == 40
    found = annotations.read(out)
    assert {one.annotator for one in found} == {f"{name}@example.org" for name in PEOPLE}
    assert {one.lead_time for one in found} == {7.0 + number for number in range(40)}
    for one in found:
        for text, start in one.said.answers:
            assert one.row.context[start:].startswith(text) and text.startswith("mile ")

    measured = label_studio.json("annotate", "agreement", out)
    pairs = [a == b for by in said.values() for a, b in combinations(by.values(), 2)]
    assert measured["label"]["share"]["value"] == pytest.approx(sum(pairs) / len(pairs))
    assert measured["label"]["alpha"]["value"] == pytest.approx(nominal_alpha(said))
    ann, ben, cleo = measured["annotators"]
    assert ann["annotations"] == 40 and ann["annotator"] == "ann@example.org"
    assert ann["same"] / ann["compared"] > ben["same"] / ben["compared"]
    assert ann["sensitivity"] + ann["specificity"] > cleo["sensitivity"] + cleo["specificity"]

    final = tmp_path / "final.parquet"
    counts = label_studio.json("annotate", "adjudicate", out, "--out", final, "--rows", path)
    assert counts["rows"] == 1000 and counts["labels"]["not judged"] == 960
    for row in record.read_rows(final):
        if row.id in said:
            assert row.sufficient == (sum(said[row.id].values()) >= 2)
            assert sum(name.startswith("worker:") for name in row.votes) == 3
    assert counts["dissent"] == sum(
        min(sum(by.values()), 3 - sum(by.values())) for by in said.values()
    )

    assert label_studio.json(*push)["unchanged"] == 1000
    first = found[0]
    label_studio.owner.json(
        "PATCH",
        f"/api/annotations/{first.annotation_id}/",
        json={"result": [no(), choose("reason", "false_premise"), write("comment", "look again")]},
    )
    label_studio.owner.http.delete(f"/api/annotations/{found[1].annotation_id}/")
    pulled = label_studio.json(*pull)
    assert (pulled["new"], pulled["changed"], pulled["deleted"]) == (0, 1, 1)
    assert pulled["tasks"] <= 2
    assert one_of(out, first.annotation_id).said.comment == "look again"
    assert one_of(out, found[1].annotation_id).status == "deleted"
    assert label_studio.json(*pull)["tasks"] == 0


def nominal_alpha(said: dict[str, dict[str, bool]]) -> float:
    """Krippendorff's alpha from its definition: observed against expected disagreement."""
    values = [value for by in said.values() for value in by.values()]
    n = len(values)
    observed = sum(
        sum(a != b for a, b in combinations(by.values(), 2)) * 2 / (len(by) - 1)
        for by in said.values()
    )
    counts = Counter(values)
    expected = sum(counts[a] * counts[b] for a in counts for b in counts if a != b)
    return 1 - (n - 1) * observed / expected


def test_a_changed_row_updates_its_task_and_what_was_said_of_the_old_one_is_stale(
    label_studio: Studio, tmp_path: Path
) -> None:
    rows = rows_of(4, "changing")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    push = ("annotate", "push", path, "--project", "changing", "--first", "random")
    label_studio.json(*push)
    project = label_studio.owner.project("changing")
    tasks = by_task(project, label_studio.owner)
    old = judge(label_studio.person("ann"), tasks[rows[1].id], True)
    kept = judge(label_studio.person("ann"), tasks[rows[3].id], True)

    changed = make_row("Where is sign 1?", rows[1].context, ["mile 7"], id=rows[1].id)
    relabelled = make_row(rows[3].question, rows[3].context, id=rows[3].id, reason="underspecified")
    saved([rows[0], changed, rows[2], relabelled], path)
    assert label_studio.json(*push)["changed"] == 2
    task = by_task(project, label_studio.owner)[changed.id]
    assert task["data"]["question"] == "Where is sign 1?" and len(task["predictions"]) == 1
    new = judge(label_studio.person("ben"), task, True)
    label_studio.json("annotate", "pull", "--project", "changing", "--out", out)
    assert {n: one_of(out, n).status for n in (old, kept, new)} == {
        old: "stale", kept: "counts", new: "counts",
    }  # fmt: skip


def test_a_disputed_row_is_decided_in_a_second_pass(label_studio: Studio, tmp_path: Path) -> None:
    rows = rows_of(6, "dispute")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    label_studio.json("annotate", "push", path, "--project", "dispute")
    owner = label_studio.owner
    tasks = by_task(owner.project("dispute"), owner)
    for name, says in (("ann", True), ("ben", False)):
        judge(label_studio.person(name), tasks[rows[1].id], says)
        judge(label_studio.person(name), tasks[rows[3].id], True)
    label_studio.json("annotate", "pull", "--project", "dispute", "--out", out)
    final = tmp_path / "final.parquet"
    adjudicate = ("annotate", "adjudicate", out)
    assert label_studio.json(*adjudicate, "--out", final)["labels"]["undecided"] == 1
    pushed = label_studio.json(*adjudicate, "--to-project", "dispute-2")
    assert pushed["added"] == 1
    second = by_task(owner.project("dispute-2"), owner)[rows[1].id]
    note = second["data"]["note"].split("\n")  # what each of the two said, without their names
    assert note == ["no: evidence_missing", "yes: “mile 7”"] and not second["predictions"]
    judge(label_studio.person("cleo"), second, False)
    later = tmp_path / "second.parquet"
    label_studio.json("annotate", "pull", "--project", "dispute-2", "--out", later)
    counts = label_studio.json(*adjudicate, "--second", later, "--out", final)
    assert "undecided" not in counts["labels"] and counts["dissent"] == 1
    row = {row.id: row for row in record.read_rows(final)}[rows[1].id]
    assert row.sufficient is False and row.reason == "evidence_missing" and len(row.votes) == 3
    dissent = annotations.read(final.with_suffix(".dissent.parquet"))
    assert [one.annotator for one in dissent] == ["ann@example.org"]


def test_the_audit_of_labels_goes_through_label_studio(
    label_studio: Studio, data_set: Path, tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "set"
    shutil.copytree(data_set, folder)
    audit = ("audit", "labels", folder, "--sample", 3, "--project", "audit")
    assert all(not each["judged"] for each in label_studio.json(*audit) or [])
    owner = label_studio.owner
    tasks = owner.tasks(owner.project("audit")["id"])
    labels = {row.id: row for row in record.read_rows(folder)}
    assert not any(task["predictions"] for task in tasks)
    ann = label_studio.person("ann")
    wrong = tasks[0]["data"]["row"]
    for task in tasks:
        row = labels[task["data"]["row"]]
        says = bool(row.sufficient) != (row.id == wrong)
        ann.annotate(
            task["id"], [yes(), mark(row.context, row.context.split()[0])] if says else [no()]
        )
    done = label_studio.curate(*audit, "--json")
    found = json.loads(done.stdout)
    assert sum(each["judged"] for each in found) == len(tasks)
    assert sum(each["right"] for each in found) == len(tasks) - 1
    kept = (folder / "judgements.jsonl").read_text()
    label_studio.curate(*audit)
    assert (folder / "judgements.jsonl").read_text() == kept
