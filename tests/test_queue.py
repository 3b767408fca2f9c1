"""The human queue on real data bases: SQLite, and PostgreSQL where it is installed."""

import multiprocessing
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from abstain.queue import Item, Queue, QueueError, Refused, Reply

_SPAWN = multiprocessing.get_context("spawn")
YES = Reply(True, ("red",))


def item(number: str, **more: object) -> Item:
    values: dict[str, object] = {
        "question": "What colour?",
        "context": "It is red.",
        "escalated": True,
        "audited": False,
        "inclusion": 1.0,
        "decision": {"action": "escalate", "confidence": 0.25, "model_answer": "blue"},
    }
    return Item(number, **{**values, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own on loopback, stopped by its process id."""
    found = [
        shutil.which("postgres"),
        *map(str, Path("/usr/lib/postgresql").glob("*/bin/postgres")),
    ]
    programs = [Path(one).resolve().parent for one in found if one]
    if not programs or not (programs[-1] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    as_user: dict[str, object] = {}
    if os.geteuid() == 0:  # it refuses to run as root
        try:
            user = pwd.getpwnam("nobody")
        except KeyError:
            pytest.skip("PostgreSQL does not run as root, and there is no other user")
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
    # Not among pytest's folders: only their owner may enter those.
    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        if as_user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield from _serving(programs[-1], folder, as_user)


def _serving(programs: Path, folder: Path, as_user: dict[str, object]) -> Iterator[str]:
    data = folder / "data"
    made = subprocess.run(
        [programs / "initdb", "-D", data, "-U", "abstain", "--auth=trust"],
        capture_output=True, text=True, cwd=folder, **as_user,  # type: ignore[call-overload]
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [programs / "postgres", "-D", data, "-p", str(port), "-k", folder, "-h", "127.0.0.1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **as_user,  # type: ignore[call-overload]
    )  # fmt: skip
    address = f"postgresql+psycopg://abstain@127.0.0.1:{port}/postgres"
    try:
        for _ in range(100):
            try:
                Queue(address)
                break
            except QueueError:
                time.sleep(0.2)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


@pytest.fixture(params=["sqlite", "postgres"])
def queue(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queue]:
    if request.param == "sqlite":
        yield Queue(tmp_path / "queue.sqlite")
        return
    import sqlalchemy as sa

    address = request.getfixturevalue("postgres")
    yield Queue(address)
    with sa.create_engine(address).begin() as run:
        run.execute(sa.text("DELETE FROM items"))


def test_a_request_comes_in_once_and_goes_its_way(queue: Queue) -> None:
    assert queue.put(item("a", created=1.0)) and queue.put(item("b", created=2.0))
    assert not queue.put(item("a", question="Another?"))
    first = queue.claim("ann")
    assert first is not None and (first.id, first.question) == ("a", "What colour?")
    second = queue.claim("ben")
    assert second is not None and second.id == "b" and queue.claim("cleo") is None
    with pytest.raises(Refused, match="is held by ann"):
        queue.answer("a", "ben", YES)
    with pytest.raises(Refused, match="an answer is missing"):
        queue.answer("a", "ann", Reply(True, (" ",)))
    done = queue.answer("a", "ann", YES)
    assert done.status == "answered" and done.reply == YES and done.answered_by == "ann"
    with pytest.raises(Refused, match="is answered already"):
        queue.answer("a", "ann", YES)
    with pytest.raises(Refused, match="there is no question c"):
        queue.answer("c", "ann", YES)
    queue.release("b", "ann")  # not hers
    queue.release("b", "ben")
    assert queue.reject("b", "cleo", "spam").status == "rejected"
    assert queue.counts() == {"answered": 1, "rejected": 1}
    assert queue.get("a") == done and queue.get("zzz") is None


def test_a_lease_that_ran_out_is_free_for_others(queue: Queue) -> None:
    queue.put(item("a"))
    assert queue.claim("ann", lease=0.05) is not None
    time.sleep(0.1)
    assert queue.counts() == {"waiting": 1} and [one.id for one in queue.items("waiting")] == ["a"]
    again = queue.claim("ben")
    assert again is not None and again.claimed_by == "ben"
    with pytest.raises(Refused, match="held by ben"):
        queue.answer("a", "ann", YES)
    queue.put(item("old", created=time.time() - 100))
    assert queue.expire(50) == 1 and queue.get("old").status == "expired"  # type: ignore[union-attr]


def _claim_all(where: str, person: str, taken: "multiprocessing.queues.Queue[str]") -> None:
    queue = Queue(where)
    while (found := queue.claim(person)) is not None:
        queue.answer(found.id, person, YES)
        taken.put(found.id)


def test_two_processes_never_get_the_same_question(queue: Queue) -> None:
    for number in range(60):
        queue.put(item(f"q{number}"))
    taken: multiprocessing.queues.Queue[str] = _SPAWN.Queue()
    people = [
        _SPAWN.Process(target=_claim_all, args=(queue.where, name, taken)) for name in ("p", "q")
    ]
    for person in people:
        person.start()
    found = [taken.get(timeout=60) for _ in range(60)]
    for person in people:
        person.join(30)
    assert sorted(found) == sorted(f"q{n}" for n in range(60))
    assert queue.counts() == {"answered": 60}


def test_threads_that_put_the_same_request_put_it_once(queue: Queue) -> None:
    added: list[bool] = []
    threads = [
        threading.Thread(target=lambda: added.append(queue.put(item("same")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(added) == [False] * 7 + [True]


def _put_for_ever(where: str) -> None:
    queue, number = Queue(where), 0
    while True:
        queue.put(item(f"k{number}"))
        print(number, flush=True)
        number += 1


def test_what_was_taken_in_survives_a_kill(tmp_path: Path) -> None:
    code = f"import test_queue; test_queue._put_for_ever({str(tmp_path / 'q.sqlite')!r})"
    import sys

    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline() for _ in range(25)]
        process.kill()
        acknowledged += process.stdout.readlines()
    there = {one.id for one in Queue(tmp_path / "q.sqlite").items()}
    said = {f"k{line.strip()}" for line in acknowledged if line.endswith("\n")}
    assert said <= there and len(there) - len(said) <= 1


def test_a_locked_data_base_is_waited_for_and_then_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    monkeypatch.setattr("abstain.queue._BUSY", 0.3)
    queue = Queue(tmp_path / "q.sqlite")
    queue.put(item("a"))
    other = sqlite3.connect(tmp_path / "q.sqlite", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(QueueError, match="cannot take a question in: database is locked"):
        queue.put(item("b"))
    assert queue.get("a") is not None  # reading does not wait for whoever writes
    other.execute("ROLLBACK")
    assert queue.put(item("b"))


def test_a_full_disk_is_named_and_loses_nothing(tmp_path: Path) -> None:
    import sqlalchemy as sa

    queue = Queue(tmp_path / "q.sqlite")
    queue.put(item("a"))

    def small(connection: object, _: object) -> None:
        connection.execute("PRAGMA max_page_count = 16")  # type: ignore[attr-defined]

    sa.event.listen(queue._engine, "connect", small)
    queue._engine.dispose()
    with pytest.raises(QueueError, match="database or disk is full"):
        for number in range(200):
            queue.put(item(f"b{number}", context="long " * 400))
    kept = [one.id for one in queue.items()]
    assert "a" in kept and queue.claim("ann") is not None


def test_what_would_sway_an_annotator_can_be_left_out() -> None:
    shown = item("a").to_json(hide_answer=True)
    assert "decision" not in shown and shown["question"] == "What colour?"


def test_where_nothing_can_be_opened_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "q.sqlite").write_text("not a data base, but text that is longer than a header")
    with pytest.raises(QueueError, match=r"q\.sqlite: cannot open it"):
        Queue(tmp_path / "q.sqlite")
    with pytest.raises(QueueError) as refused:
        Queue("postgresql+psycopg://me:secret@127.0.0.1:9/db")
    assert "secret" not in str(refused.value)
