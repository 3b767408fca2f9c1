"""What goes wrong outside: the installed command says what and where, and nothing is lost."""

import json
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import (
    curate,
    dropped,
    hashes,
    splits,
    stations,
    write_json,
    write_recipe,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with source, recipe and the finished data set ``out``."""
    folder = tmp_path_factory.mktemp("finished")
    write_json(folder / "s.json", stations(6))
    # Methods that keep to the share exactly, so that rows can be counted.
    methods = {"methods": ["no_context", "evidence_removed", "context_swapped"]}
    source = {"kind": "squad", "path": "s.json"}
    recipe = write_recipe(folder / "r.yaml", source, insufficient=methods)
    done = curate("build", recipe, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def work(finished: Path, tmp_path: Path) -> Path:
    """A copy of that folder to spoil."""
    return Path(shutil.copytree(finished, tmp_path / "work"))


def data_set(folder: Path) -> dict[str, str]:
    """The hashes of the finished files, without what a build under way keeps beside them."""
    return {name: value for name, value in hashes(folder).items() if not name.startswith(".build")}


def refused(work: Path, *mentions: str, **options: Any) -> None:
    """Building fails as it should, names everything, and leaves the data set as it was."""
    before = data_set(work / "out")
    done = curate("build", work / "r.yaml", "--out", work / "out", **options)
    says_why(done, *mentions)
    assert data_set(work / "out") == before


def says_why(done: subprocess.CompletedProcess[str], *mentions: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    message = done.stderr[done.stderr.index("error: ") :]
    for mention in mentions:
        assert mention in message
    assert done.stdout == ""


def builds(work: Path) -> None:
    done = curate("build", work / "r.yaml", "--out", work / "out")
    assert done.returncode == 0, done.stderr


def first_question(value: Any) -> dict[str, Any]:
    question: dict[str, Any] = value["data"][0]["paragraphs"][0]["qas"][0]
    return question


def test_file_cut_in_half_is_named_with_line_and_column(work: Path) -> None:
    source = work / "s.json"
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
    refused(work, str(source), "line 1 column", "cut off")


def test_missing_field_is_named_with_its_place(work: Path) -> None:
    value = stations(6)
    del first_question(value)["question"]
    write_json(work / "s.json", value)
    refused(work, f"{work / 's.json'}: data[0].paragraphs[0].qas[0]", "'question' is missing")


def test_wrong_type_is_named_with_its_place(work: Path) -> None:
    value = stations(6)
    first_question(value)["answers"][0]["answer_start"] = "twelve"
    write_json(work / "s.json", value)
    place = f"{work / 's.json'}: data[0].paragraphs[0].qas[0].answers[0].answer_start"
    refused(work, place, "int is needed, found 'twelve'")


def test_byte_that_is_not_utf8_is_named_with_its_offset(work: Path) -> None:
    raw = (work / "s.json").read_bytes()
    spoilt = raw.replace(b"keeper", b"k\xe9eper", 1)
    (work / "s.json").write_bytes(spoilt)
    offset = spoilt.index(b"\xe9")
    refused(work, str(work / "s.json"), f"byte 0xe9 at offset {offset:,} (line 1)")


def test_missing_source_and_missing_recipe_are_named(work: Path) -> None:
    (work / "s.json").unlink()
    refused(work, f"there is no {work / 's.json'}")
    (work / "r.yaml").unlink()
    refused(work, f"cannot read {work / 'r.yaml'}", "no such file")


def test_mistakes_in_the_recipe_are_all_named(work: Path) -> None:
    (work / "r.yaml").write_text("name: x\nsources:\n- {kind: squad, pth: s.json}\nsede: 3\n")
    refused(work, "line 3: key 'sources.0.path' is missing", "line 4: unknown key 'sede'; did you")


def test_ledger_that_is_damaged_stops_the_build_and_stays(work: Path) -> None:
    (work / "out" / "folds.json").write_text('{"documents": ')
    refused(work, str(work / "out" / "folds.json"), "not valid JSON")


def test_wrong_offset_is_repaired_and_a_lost_answer_dropped_with_its_reason(work: Path) -> None:
    value = stations(6)
    qas = value["data"][0]["paragraphs"][0]["qas"]
    right = qas[0]["answers"][0]["answer_start"]
    qas[0]["answers"][0]["answer_start"] += 7
    qas[1]["answers"] = [{"text": "the year 3000", "answer_start": 4}]
    write_json(work / "s.json", value)
    builds(work)
    found = {row.source_id: row for rows in splits(work / "out").values() for row in rows
             if row.method == "human"}  # fmt: skip
    assert found[qas[0]["id"]].answer_starts == [right]
    assert qas[1]["id"] not in found
    lost = {d.row.source_id: (d.step, d.drop_reason, d.detail) for d in dropped(work / "out")}
    assert lost[qas[1]["id"]] == ("clean", "answer_not_found", "the year 3000")


def test_empty_and_huge_contexts_are_dropped_with_their_reasons(work: Path) -> None:
    value = stations(6)
    empty, huge = value["data"][0]["paragraphs"][:2]
    empty["context"] = ""
    huge["context"] += " And so on." * 200_000
    assert len(huge["context"]) > 2_000_000
    write_json(work / "s.json", value)
    builds(work)
    gone = {d.row.source_id: d for d in dropped(work / "out")}
    for question in empty["qas"][:4]:
        assert gone[question["id"]].drop_reason == "empty_context"
    for question in huge["qas"]:
        assert gone[question["id"]].drop_reason == "context_too_long"
    assert "at most 20,000" in gone[huge["qas"][0]["id"]].detail


def test_target_below_a_plain_file_is_refused(work: Path) -> None:
    target = work / "s.json" / "out"
    done = curate("build", work / "r.yaml", "--out", target)
    says_why(done, str(target), "a folder is needed")
    done = curate("import", "squad", work / "s.json", "--out", target / "rows.parquet")
    says_why(done, str(target), "a folder is needed")
    assert json.loads((work / "s.json").read_text()) == stations(6)


@pytest.fixture
def bound(work: Path) -> Iterator[list[str]]:
    """What to put before a command so that permission bits bind it: for root, they do not."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        drop = "-dac_override,-dac_read_search"
        prefix = ["setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}"]
        (work / "probe").mkdir(mode=0o555)
        if shutil.which("setpriv") is None:
            pytest.skip("root, and there is no setpriv to give up root's rights with")
        touch = subprocess.run([*prefix, "touch", work / "probe" / "x"], stderr=subprocess.DEVNULL)
        if (work / "probe" / "x").exists() or not touch.returncode:
            pytest.skip("root, and its right to write anywhere cannot be given up")
        (work / "probe").rmdir()
    yield prefix
    for path in [work, *work.rglob("*")]:
        path.chmod(0o755)


def test_folder_without_permission_to_write_is_named(work: Path, bound: list[str]) -> None:
    for folder in (work / "out", work):
        folder.chmod(0o555)
    before, target = hashes(work), work / "new"
    new = curate("build", work / "r.yaml", "--out", target, prefix=bound)
    says_why(new, f"cannot write {target}", "permission denied")
    rows = curate("import", "squad", work / "s.json", "--out", target / "x.parquet", prefix=bound)
    says_why(rows, f"cannot write {target}", "permission denied")
    again = curate("build", work / "r.yaml", "--out", work / "out", "--fresh", prefix=bound)
    says_why(again, f"cannot write {work / 'out'}", "permission denied")
    assert hashes(work) == before


def test_path_that_must_not_be_looked_into_is_named(work: Path, bound: list[str]) -> None:
    (work / "locked").mkdir(mode=0)
    target = work / "locked" / "out"
    done = curate("build", work / "r.yaml", "--out", target, prefix=bound)
    says_why(done, f"cannot read {target}", "permission denied")
    (work / "s.json").chmod(0)
    done = curate("build", work / "r.yaml", "--out", work / "out", prefix=bound)
    says_why(done, f"cannot read {work / 's.json'}", "permission denied")


@pytest.mark.parametrize("limit", [2_000, 12_000])
def test_file_that_cannot_be_written_whole_stops_the_build_and_it_goes_on_afterwards(
    work: Path, limit: int
) -> None:
    write_json(work / "s.json", stations(12))
    allow = (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    refused(
        work,
        f"cannot write {work / 'out'}",
        "file-size limit",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, allow),
    )
    builds(work)
    assert sum(map(len, splits(work / "out").values())) == 12 * 4 * 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    command = [mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting a small file system is not allowed here: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_full_disk_stops_the_build_and_after_making_room_it_completes(
    finished: Path, small_disk: Path
) -> None:
    work = Path(shutil.copytree(finished, small_disk / "work"))
    write_json(work / "s.json", stations(12))
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        file.write(b"x" * (shutil.disk_usage(small_disk).free - 60_000))
    refused(work, f"cannot write {work / 'out'}", "the disk is full; free some space")
    filler.unlink()
    builds(work)
    assert sum(map(len, splits(work / "out").values())) == 12 * 4 * 8
    assert not (work / "out" / ".build").exists()


def test_a_source_without_any_usable_row_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    article = {
        "title": "Empty",
        "paragraphs": [
            {
                "context": "",
                "qas": [
                    {"id": "1", "question": "Why?", "answers": [{"text": "x", "answer_start": 0}]}
                ],
            }
        ],
    }
    (tmp_path / "empty.json").write_text(json.dumps({"data": [article]}))
    (tmp_path / "recipe.yaml").write_text(
        "name: empty\nsources:\n  - {kind: squad, path: empty.json}\n"
    )
    done = curate("build", tmp_path / "recipe.yaml", "--out", tmp_path / "set")
    assert done.returncode == 1
    assert "no row is left; dropped: empty_context 1" in done.stderr
    assert not (tmp_path / "set" / "manifest.json").exists()
