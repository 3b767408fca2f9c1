"""The command: its help, its JSON, its exit codes, and what `show` and `import` print."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from curate_helpers import ROOT, curate, stations, write_json, write_recipe
from helpers import BIN, ENVIRONMENT

from curate.cli import cli
from curate.record import PASSAGE_SCHEMA, passages_from_table, read_rows, read_table

DEMO = ROOT / "data" / "demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A source and a recipe, and in ``out`` the data set."""
    folder = tmp_path_factory.mktemp("cli")
    write_json(folder / "s.json", stations(6))
    recipe = write_recipe(folder / "r.yaml", {"kind": "squad", "path": "s.json"})
    done = curate("build", recipe, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return folder


def test_help_lists_every_command_with_what_it_does() -> None:
    done = curate("--help")
    assert done.returncode == 0
    for name, command in cli.commands.items():
        assert f"  {name} " in done.stdout
        assert command.get_short_help_str(40).rstrip(".") in done.stdout
    assert "curate build data/recipes/demo.yaml" in done.stdout


@pytest.mark.parametrize(
    ("command", "mentions"),
    [
        ("build", ["RECIPE", "--out", "--workers", "--fresh", "--json", "sources:"]),
        ("import", ["stackexchange", "--out", "--licence", "--json", "hub:NAME"]),
        ("show", ["PATH", "-n", "--seed", "--json"]),
    ],
)
def test_help_of_a_command_mentions_its_options(command: str, mentions: list[str]) -> None:
    done = curate(command, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert [mention for mention in mentions if mention not in done.stdout] == []


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_option_of_every_command_is_explained(command: str) -> None:
    done = curate(command, "-h")
    assert done.returncode == 0
    assert cli.commands[command].help
    for option in cli.commands[command].params:
        if option.param_type_name == "option":
            assert option.opts[0] in done.stdout
            assert getattr(option, "help", ""), f"{command} {option.name} has no help"


def test_help_loads_no_heavy_library() -> None:
    heavy = ["torch", "pyarrow", "datasets", "pandas", "numpy", "bm25s", "bs4", "ftfy"]
    code = f"import sys, curate.cli; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ["biuld"],
        ["build"],
        ["build", "r.yaml"],
        ["build", "r.yaml", "--out", "x", "--workers", "many"],
        ["import", "excel", "x", "--out", "y"],
        ["show", "x", "-n", "0"],
        ["show", "x", "-n", "-1"],
    ],
)
def test_wrong_usage_exits_with_2_and_a_hint(arguments: list[str]) -> None:
    done = curate(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: curate" in done.stderr
    assert "Traceback" not in done.stderr


def test_build_tells_a_person_what_came_of_the_rows(folder: Path, tmp_path: Path) -> None:
    done = curate("build", folder / "r.yaml", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert re.search(r"insufficient +120 +\d+ +\d+ +\d+", done.stdout)
    assert "train" in done.stdout
    assert str(tmp_path / "out" / "report.html") in done.stdout


def test_build_prints_json_for_a_program_first_time_and_again(folder: Path, tmp_path: Path) -> None:
    first = curate("build", folder / "r.yaml", "--out", tmp_path / "out", "--json")
    again = curate("build", folder / "r.yaml", "--out", tmp_path / "out", "--json")
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert json.loads(first.stdout) == json.loads(again.stdout) == written
    assert "already built" in again.stderr
    assert written["splits"]["train"]["label"]["sufficient"] > 0


def test_show_prints_rows_of_a_folder_and_of_a_file(folder: Path) -> None:
    rows = {row.id: row for row in read_rows(folder / "out")}
    done = curate("show", folder / "out", "-n", 3)
    assert done.returncode == 0
    heads = [line for line in done.stdout.splitlines() if line.startswith("── ")]
    assert len(heads) == 3
    for head in heads:
        row = rows[head.split()[1]]
        assert row.fold in head
        assert ("insufficient: " + row.reason if row.reason else "sufficient") in head
        assert f"Q: {row.question}" in done.stdout
        assert (row.context or "(no context)") in done.stdout
    one = curate("show", folder / "out" / "test.parquet", "-n", 10_000, "--json")
    shown = [json.loads(line) for line in one.stdout.splitlines()]
    assert {row["id"] for row in shown} == {r.id for r in rows.values() if r.fold == "test"}


def test_show_draws_the_same_rows_for_the_same_seed(folder: Path) -> None:
    drawn = [curate("show", folder / "out", "--seed", seed).stdout for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_show_into_a_closed_pipe_is_no_error(folder: Path) -> None:
    process = subprocess.Popen(
        [BIN / "curate", "show", folder / "out", "-n", "1000", "--json"],  # more than a pipe holds
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=ENVIRONMENT,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no such file"), ("empty", "no train.parquet"), ("s.json", "not a whole Parquet")],
)
def test_show_of_what_is_no_data_set_says_so(folder: Path, name: str, message: str) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    done = curate("show", folder / name)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert str(folder / name) in done.stderr


def test_show_of_passages_names_the_column_that_rows_have(tmp_path: Path) -> None:
    done = curate("import", "site", DEMO / "site", "--out", tmp_path / "site.parquet")
    assert done.returncode == 0, done.stderr
    shown = curate("show", tmp_path / "site.passages.parquet")
    assert shown.returncode == 1
    assert "site.passages.parquet: column 'question' is missing" in shown.stderr


def test_import_of_squad_keeps_the_rows_as_they_are(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.parquet"
    done = curate("import", "squad", folder / "s.json", "--out", out, "--licence", "CC0-1.0")
    assert done.returncode == 0, done.stderr
    assert "120 rows (sufficient 96, insufficient 24), 0 passages" in done.stdout
    rows = read_rows(out)
    questions = [q for a in stations(6)["data"] for p in a["paragraphs"] for q in p["qas"]]
    assert [row.question for row in rows] == [question["question"] for question in questions]
    assert {row.licence for row in rows} == {"CC0-1.0"}
    assert {row.source for row in rows} == {"s"}


def test_import_of_a_table_and_of_a_site_prints_json(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("question,context,answers\nWho?,Ada left.,Ada\n")
    done = curate("import", "table", tmp_path / "t.csv", "--out", tmp_path / "t.parquet", "--json")
    assert json.loads(done.stdout) == {"rows": 1, "labels": {"sufficient": 1}, "passages": 0}
    assert read_rows(tmp_path / "t.parquet")[0].answer_starts == [0]
    done = curate("import", "site", DEMO / "site", "--out", tmp_path / "d.parquet", "--json")
    assert json.loads(done.stdout) == {"rows": 30, "labels": {"sufficient": 30}, "passages": 104}
    passages = passages_from_table(read_table(tmp_path / "d.passages.parquet", PASSAGE_SCHEMA))
    assert len(passages) == 104
    assert len(read_rows(tmp_path / "d.parquet")) == 30


def test_imported_rows_can_be_built_from(folder: Path, tmp_path: Path) -> None:
    curate("import", "squad", folder / "s.json", "--out", tmp_path / "rows.parquet")
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "table", "path": "rows.parquet"})
    done = curate("build", recipe, "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"][0]["created"] == 120
    assert pq.read_table(tmp_path / "out" / "train.parquet").num_rows > 0


def test_import_that_fails_leaves_the_old_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"question": "Q?"}\n{"question": 1.5}\n')
    out = tmp_path / "rows.parquet"
    out.write_bytes(b"precious")
    done = curate("import", "table", tmp_path / "bad.jsonl", "--out", out)
    assert done.returncode == 1
    assert "bad.jsonl: line 2: 'question' must be a text" in done.stderr
    assert out.read_bytes() == b"precious"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "rows.parquet"]
