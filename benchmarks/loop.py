"""`make loop`: serve, escalate, have people answer, and learn from it, through the commands.

    python -m benchmarks.loop [--recipe data/recipes/loop.yaml] [--out out/loop]

A first model is trained and served; the questions of the stream fold are asked; what it does not
answer, and a drawn share of everything, goes to people (here: the rows' own labels, for four in
five of them); what they say is exported, each document into training or into calibration; a second
model is trained on both and compared with the first on the untouched test split. Stopped and
started again, it goes on where it was.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx

from abstain.queue import Queue, Reply
from benchmarks.demo import BIN, run
from benchmarks.paths import ROOT
from curate.console import interval, table
from curate.files import write_json, write_text
from curate.record import Row, read_fold

PORT = 8123
ANSWERED = 0.8  # of what people are asked, as in life
POLICY = """name: answer, or ask a person
rules:
  - {action: answer}
  - {action: escalate}
audit_share: 0.5
"""


@contextlib.contextmanager
def serving(trained: Path, state: Path) -> Iterator[str]:
    """`abstain serve`, until this is over."""
    command = ["abstain", "serve", trained, "--state", state, "--port", PORT]
    command += ["--policy", state / "policy.yaml"]
    print("\n$ " + " ".join(map(str, command)) + " &", flush=True)
    server = subprocess.Popen([str(BIN / str(command[0])), *map(str, command[1:])], cwd=ROOT)
    address = f"http://127.0.0.1:{PORT}"
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise SystemExit("the server did not start")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/readyz").status_code == 200:
                    break
            time.sleep(0.5)
        yield address
    finally:
        os.kill(server.pid, signal.SIGTERM)
        server.wait()


def ask(address: str, rows: list[Row]) -> Counter[str]:
    """Put the questions of the stream to the server, under the rows' own ids."""
    actions: Counter[str] = Counter()
    with httpx.Client(timeout=60) as client:
        for row in rows:
            body = {"question": row.question, "context": row.context, "id": row.id}
            answer = client.post(f"{address}/v1/ask", json={**body, "document": row.document_id})
            answer.raise_for_status()
            actions[answer.json()["action"]] += 1
    return actions


def answer_as_people(queue: Queue, rows: list[Row]) -> int:
    """What waits, answered by the rows' own labels; a part is left, as people do."""
    known = {row.id: row for row in rows}
    draw = random.Random(13)
    answered = 0
    for item in queue.items("waiting"):
        row = known[item.id.partition(":")[2]]
        if draw.random() < ANSWERED:
            reply = Reply(bool(row.sufficient), tuple(row.answers), row.reason)
            queue.answer(item.id, "people", reply)
            answered += 1
    return answered


def service(data: Path, trained: Path, state: Path) -> dict[str, object]:
    """One round in service: what was asked, what became of it, what people answered."""
    done = ROOT / state / "round.json"
    if done.exists():
        found: dict[str, object] = json.loads(done.read_text())
        return found
    shutil.rmtree(ROOT / state, ignore_errors=True)  # a round that was cut off begins anew
    (ROOT / state).mkdir(parents=True)
    write_text(ROOT / state / "policy.yaml", POLICY)
    rows = [row for row in read_fold(ROOT / data, "stream") if row.method == "human"]
    with serving(trained, state) as address:
        started = time.perf_counter()
        actions = ask(address, rows)
        each = (time.perf_counter() - started) / len(rows)
    queue = Queue(ROOT / state / "queue.sqlite")
    asked = len(queue.items())
    found = {
        "questions": len(rows),
        "actions": dict(actions),
        "seconds_each": each,
        "before_people": asked,
        "answered_by_people": answer_as_people(queue, rows),
    }
    write_json(done, found)
    return found


def main() -> None:
    """The whole loop, timed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--recipe", type=Path, default=Path("data/recipes/loop.yaml"))
    parser.add_argument("--config", type=Path, default=Path("data/demo/train.yaml"))
    parser.add_argument("--out", type=Path, default=Path("out/loop"))
    parser.add_argument("--target-risk", type=float, default=0.3)
    arguments = parser.parse_args()
    out = arguments.out
    data = [out / "data-1", out / "data-2"]
    runs = [out / "run-1", out / "run-2"]
    evaluations = [out / "evaluation-1", out / "evaluation-2"]
    seconds = {"build": run("curate", "build", arguments.recipe, "--out", data[0])}

    def learn(n: int) -> float:
        config = ("--config", arguments.config)
        spent = run("train", "run", "--data", data[n], "--out", runs[n], *config)
        risk = ("--target-risk", arguments.target_risk)
        spent += run("abstain", "calibrate", runs[n], "--data", data[n], *risk)
        # The first data set's test split, which neither has seen: the second only copied it.
        return spent + run(
            "abstain", "evaluate", runs[n], "--data", data[0], "--out", evaluations[n]
        )

    seconds["first model"] = learn(0)
    started = time.perf_counter()
    found = service(data[0], runs[0], out / "service")
    seconds["service"] = time.perf_counter() - started
    more = out / "more.parquet"
    at = ("--at", out / "service")
    seconds["export"] = run("abstain", "queue", "export", *at, "--with", data[0], "--out", more)
    if not (ROOT / data[1] / "manifest.json").exists():
        seconds["rebuild"] = run("curate", "split", more, "--out", data[1])
    seconds["second model"] = learn(1)
    report = ("--report", out / "compare.html")
    run("abstain", "compare", *evaluations, *report)
    rounds = [part for pair in zip(runs, data, strict=True) for part in ("--round", *pair)]
    run("train", "continual", *rounds, "--out", out / "continual")
    compared = json.loads(
        subprocess.run(
            [str(BIN / "abstain"), "compare", *map(str, evaluations), "--json"],
            cwd=ROOT, check=True, capture_output=True, text=True,
        ).stdout
    )  # fmt: skip
    sizes = [
        {fold: len(read_fold(ROOT / one, fold)) for fold in ("train", "calibration", "test")}
        for one in data
    ]
    print(f"\nin service: {found}")
    print(table(("data set", "train", "calibration", "test"), [
        (name, *size.values()) for name, size in zip(("first", "second"), sizes, strict=True)
    ]))  # fmt: skip
    first, second = compared["metrics"]
    lines = [
        (key, interval(value), interval(compared["metrics"][second][key]),
         interval(compared["differences"][second][key]))
        for key, value in compared["metrics"][first].items()
    ]  # fmt: skip
    print(table(("behind the threshold", "first", "second", "difference"), lines))
    print(f"{sum(seconds.values()) / 60:.1f} minutes; pictures: {out / 'compare.html'}")
    value = {"service": found, "sizes": sizes, "compared": compared, "seconds": seconds}
    write_json(ROOT / out / "loop.json", value)


if __name__ == "__main__":
    main()
