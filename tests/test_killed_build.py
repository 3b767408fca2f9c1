"""A build that is killed at any moment and started again gives the same bytes as one that ran."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from curate_helpers import curate, hashes, stations, write_json, write_recipe
from helpers import BIN, ENVIRONMENT

from curate import pipeline

# Files in OUT/.build at the moment of the kill: reading, two batches of cleaning, deriving, and
# the finished files; a whole build has 23.
MOMENTS = (1, 3, 6, 9, 10, 16)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("big")
    write_json(folder / "s.json", stations(26, contexts=10))  # 1,300 rows: two batches
    return write_recipe(folder / "r.yaml", {"kind": "squad", "path": "s.json"})


@pytest.fixture(scope="module")
def expected(recipe: Path) -> dict[str, str]:
    """The hashes of a build that nothing interrupted."""
    return finish(recipe, recipe.parent / "reference")


def files_below(folder: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(folder))


def kill_when(moment: Callable[[], bool], recipe: Path, out: Path, workers: int = 1) -> bool:
    """Start a build and kill it -9 as soon as ``moment`` comes; whether it was still running."""
    process = subprocess.Popen(
        [BIN / "curate", "build", recipe, "--out", out, "--workers", str(workers)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    for _ in range(60_000):
        if moment() or process.poll() is not None:
            break
        time.sleep(0.001)
    process.kill()
    return process.wait() == -9


def finish(recipe: Path, out: Path) -> dict[str, str]:
    """Go on with a build, or make a whole one (in this process, which spares the start-up)."""
    pipeline.build(recipe, out)
    return hashes(out)


def test_build_killed_again_and_again_ends_with_the_same_bytes(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    hits = [kill_when(lambda n=n: files_below(out / ".build") >= n, recipe, out) for n in MOMENTS]
    assert sum(hits) >= 4, "the kills came too late to test anything"
    assert finish(recipe, out) == expected


def test_build_killed_once_is_finished_by_the_same_command(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kill_when(lambda: files_below(out / ".build") >= 10, recipe, out)
    assert not (out / "manifest.json").exists()
    done = curate("build", recipe, "--out", out)
    assert done.returncode == 0, done.stderr
    assert hashes(out) == expected


def test_build_killed_while_it_moves_its_files_ends_with_the_same_bytes(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    kill_when(lambda: (out / "README.md").exists(), recipe, out)
    assert finish(recipe, out) == expected


def test_finished_steps_are_not_done_again(recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert kill_when(lambda: (out / ".build" / "clean-00000").exists(), recipe, out)
    marks = {p: p.stat().st_mtime_ns for p in (out / ".build").glob("*/rows.parquet")}
    assert len(marks) >= 2
    assert kill_when(lambda: (out / ".build" / "insufficient").exists(), recipe, out)
    assert {p: p.stat().st_mtime_ns for p in marks} == marks


def test_two_workers_give_the_same_bytes(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    done = curate("build", recipe, "--out", tmp_path / "out", "--workers", 2)
    assert done.returncode == 0, done.stderr
    assert hashes(tmp_path / "out") == expected


def test_killed_build_of_two_workers_leaves_no_process_and_one_worker_finishes_it(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    begun = out / ".build" / "clean-00000.half"
    assert kill_when(begun.exists, recipe, out, workers=2)
    for _ in range(200):
        if not processes_with(str(out)):
            break
        time.sleep(0.05)
    left = processes_with(str(out))
    for number in left:
        os.kill(number, signal.SIGKILL)
    assert left == []
    assert finish(recipe, out) == expected


def processes_with(argument: str) -> list[int]:
    """The running processes that were started with an argument."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("processes are looked up in /proc, which this system does not have")
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            if argument.encode() in entry.read_bytes().split(b"\0"):
                found.append(int(entry.parent.name))
    return found


def test_killed_rebuild_leaves_the_finished_data_set_as_it_was(
    recipe: Path, expected: dict[str, str], tmp_path: Path
) -> None:
    out, source = tmp_path / "out", tmp_path / "s.json"
    own = write_recipe(tmp_path / "r.yaml", {"kind": "squad", "path": "s.json"})
    write_json(source, stations(8))
    before = finish(own, out)
    source.write_bytes((recipe.parent / "s.json").read_bytes())
    assert kill_when(lambda: files_below(out / ".build") >= 8, own, out)
    left = {name: value for name, value in hashes(out).items() if not name.startswith(".build/")}
    assert left == before
    assert finish(own, out).keys() == before.keys()


def test_steps_of_a_killed_build_are_not_taken_up_for_other_sources(
    recipe: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert kill_when(lambda: files_below(out / ".build") >= 10, recipe, out)
    write_json(tmp_path / "s.json", stations(5))
    other = write_recipe(tmp_path / "r.yaml", {"kind": "squad", "path": "s.json"})
    assert finish(other, out) == finish(other, tmp_path / "elsewhere")
