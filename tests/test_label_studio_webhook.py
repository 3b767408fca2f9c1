"""Annotations that arrive as they are made, and those that the receiver missed."""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
from label_studio import Studio, by_task, free_port, judge, rows_of, saved, wait_until

from curate.annotate import annotations


@contextlib.contextmanager
def receiver(studio: Studio, project: str, out: Path) -> Iterator[str]:
    """`curate annotate webhook`, from when it listens; stopped in the end."""
    port = free_port()
    command = ("annotate", "webhook", "--project", project, "--out", out, "--port", port)
    process = studio.start(*command)
    address = f"http://127.0.0.1:{port}/"

    def listens() -> bool:
        assert process.poll() is None, process.communicate()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.post(address, json={}, trust_env=False).status_code == 401
        return False

    try:
        wait_until(listens)
        yield address
    finally:
        os.kill(process.pid, signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert "Traceback" not in err, err


def test_annotations_arrive_as_they_are_made_and_a_pull_brings_the_missed(
    label_studio: Studio, tmp_path: Path
) -> None:
    rows = rows_of(6, "hook")
    path, out = saved(rows, tmp_path / "rows.parquet"), tmp_path / "said.parquet"
    label_studio.json("annotate", "push", path, "--project", "hook")
    owner, ann = label_studio.owner, label_studio.person("ann")
    number = owner.project("hook")["id"]
    tasks = by_task(owner.project("hook"), owner)
    with receiver(label_studio, "hook", out) as address:
        first = judge(ann, tasks[rows[1].id], True)
        gone = judge(ann, tasks[rows[2].id], False)
        owner.http.delete(f"/api/annotations/{gone}/")
        forged = {"action": "ANNOTATION_CREATED", "annotation": {"id": 1}}
        answer = httpx.post(address, json=forged, headers={"X-Grounded-Abstain": "x"})
        assert answer.status_code == 401
        wait_until(lambda: out.exists() and len(annotations.read(out)) == 2)
        found = {one.annotation_id: one for one in annotations.read(out)}
        assert found[first].said.sufficient and found[first].annotator == "ann@example.org"
        assert found[first].status == "counts" and found[gone].status == "deleted"
        hooks = owner.json("GET", "/api/webhooks/", params={"project": number})
        assert [hook["url"] for hook in hooks] == [address]
    assert owner.json("GET", "/api/webhooks/", params={"project": number}) == []
    owner.http.delete(f"/api/annotations/{first}/")  # told of by an event, and never pulled
    missed = judge(ann, tasks[rows[3].id], True)
    pulled = label_studio.json("annotate", "pull", "--project", "hook", "--out", out)
    assert pulled["annotations"] == {"counts": 1, "deleted": 2}
    assert missed in {one.annotation_id for one in annotations.read(out)}
