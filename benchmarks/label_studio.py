"""Seconds of each step of the loop with Label Studio, on a server of its own on loopback.

    python -m benchmarks.label_studio [--rows 1000 10000] [--out out/benchmarks/label_studio.json]

Every row is annotated by three people; those annotations are imported with the tasks, since the
labelling page's API takes 0.1 s for each. Each command runs in a process of its own, as a user's.
"""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks.paths import ROOT
from curate import record
from curate.annotate.label_studio import local
from curate.console import table
from curate.files import write_json
from curate.record import Row

BIN = Path(sys.executable).parent
EXECUTABLE = ROOT / ".venv-label-studio" / "bin" / "label-studio"
PEOPLE = 3
EDITED = 10


def rows_of(count: int) -> list[Row]:
    """Rows with contexts as long as SQuAD's (120 words)."""
    draw = random.Random(count)
    words = [f"{draw.choice('bdfglmnprst')}{draw.choice('aeiou')}{n}" for n in range(4000)]
    rows = []
    for n in range(count):
        context = " ".join(draw.choices(words, k=120))
        answers = [context.split()[7]] if n % 2 else []
        row = Row(f"what is {n}", context, answers=answers, source="benchmark", source_id=str(n))
        row.answer_starts = [context.index(answer) for answer in answers]
        row.sufficient, row.document_id = bool(answers), str(n // 5)
        row.reason = "" if answers else "evidence_missing"
        rows.append(row.stamped())
    return rows


def measure(count: int, running: local.Running, folder: Path) -> dict[str, Any]:
    """Seconds of each step with so many rows."""
    name = f"benchmark {count}"
    path, out = folder / f"{count}.parquet", folder / f"{count}.said.parquet"
    rows = rows_of(count)
    record.write_table(record.to_table(rows), path)
    environment = {
        **os.environ,
        "LABEL_STUDIO_URL": running.address,
        "LABEL_STUDIO_API_KEY": running.owner.token,
        "TQDM_DISABLE": "1",
    }

    def seconds(*arguments: object) -> float:
        begun = time.perf_counter()
        command = [str(BIN / "curate"), "annotate", *map(str, arguments)]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - begun

    push = ("push", path, "--project", name, "--overlap", PEOPLE)
    pull = ("pull", "--project", name, "--out", out)
    found = {"push": seconds(*push), "push again": seconds(*push)}
    found["pull, nothing yet"] = seconds(*pull)
    headers = {"Authorization": f"Token {running.owner.token}"}
    with httpx.Client(base_url=running.address, headers=headers, timeout=600) as http:
        annotate(http, name, count)
        found["pull all annotations"] = seconds(*pull)
        found["pull, nothing new"] = seconds(*pull)
        found["agreement"] = seconds("agreement", out)
        found["adjudicate, majority"] = seconds("adjudicate", out, "--out", folder / "rows.parquet")
        model = ("--by", "dawid-skene", "--out", folder / "rows.parquet")
        found["adjudicate, Dawid-Skene"] = seconds("adjudicate", out, *model)
        edit(http, name)
        found[f"pull, {EDITED} edited"] = seconds(*pull)
    for row in rows[:EDITED]:
        row.question += ", then"
    record.write_table(record.to_table([row.stamped() for row in rows]), path)
    found[f"push, {EDITED} changed"] = seconds(*push)
    return {"rows": count, "annotations": PEOPLE * count, "seconds": found}


def annotate(http: httpx.Client, name: str, count: int) -> None:
    """Give each task an annotation of three people each; the tasks are imported anew with them."""
    project = _project(http, name)
    query = {"project": project, "page_size": count, "fields": "all", "include": "id,data,meta"}
    tasks = http.get("/api/tasks/", params=query).json()["tasks"]
    names = [f"p{n}-{count}" for n in range(PEOPLE)]
    accounts = [{"email": f"{person}@example.org", "username": person} for person in names]
    numbers = [http.post("/api/users/", json=account).json()["id"] for account in accounts]
    draw = random.Random(7)
    http.request("DELETE", f"/api/projects/{project}/tasks/").raise_for_status()
    for start in range(0, count, 1000):
        batch = [
            {
                "data": task["data"],
                "meta": task["meta"],
                "annotations": [
                    {"completed_by": number, "lead_time": 9.0, "result": [choice(draw)]}
                    for number in numbers
                ],
            }
            for task in tasks[start : start + 1000]
        ]
        http.post(f"/api/projects/{project}/import", json=batch).raise_for_status()


def choice(draw: random.Random) -> dict[str, Any]:
    """Yes or no."""
    value = {"choices": [draw.choice(("yes", "no"))]}
    return {"from_name": "sufficient", "to_name": "passage", "type": "choices", "value": value}


def edit(http: httpx.Client, name: str) -> None:
    """Change some annotations."""
    query = {"project": _project(http, name), "page_size": EDITED, "fields": "all"}
    for task in http.get("/api/tasks/", params=query).json()["tasks"]:
        body = {"result": [choice(random.Random(1))], "lead_time": 11.0}
        number = task["annotations"][0]["id"]
        http.patch(f"/api/annotations/{number}/", json=body).raise_for_status()


def _project(http: httpx.Client, name: str) -> int:
    found = http.get("/api/projects/", params={"title": name}).json()["results"]
    return int(next(one["id"] for one in found if one["title"] == name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/label_studio.json")
    arguments = parser.parse_args()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        server = Path(folder) / "server"
        with local.serving(EXECUTABLE, server, port) as running:
            found = [measure(count, running, Path(folder)) for count in arguments.rows]
    write_json(arguments.out, found)
    steps = list(found[0]["seconds"])
    header = ("step, seconds", *(f"{each['rows']:,} rows" for each in found))
    lines = [(step, *(f"{each['seconds'][step]:.1f}" for each in found)) for step in steps]
    print(table(header, lines))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
