"""`curate insufficient`, `split`, `audit`, `report`, one after the other as a user runs them."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import curate, dropped, make_row, splits, stations, write_json, write_recipe
from datasets import load_dataset
from helpers import BIN, ENVIRONMENT
from huggingface_hub import DatasetCard

from curate.record import Row, read_rows, to_table, write_table


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Imported rows, the same with insufficient ones, and a data set of them."""
    folder = tmp_path_factory.mktemp("steps")
    write_json(folder / "stations.json", stations(12))
    done = curate("import", "squad", folder / "stations.json", "--out", folder / "rows.parquet")
    assert done.returncode == 0, done.stderr
    done = curate(
        "insufficient", folder / "rows.parquet", "--out", folder / "more.parquet", "--share", 0.6
    )
    assert done.returncode == 0, done.stderr
    done = curate("split", folder / "more.parquet", "--out", folder / "set", "--share", 0.6)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_method_without_a_model_is_used_and_the_others_are_named(folder: Path) -> None:
    again = curate(
        "insufficient", folder / "rows.parquet", "--out", folder / "again.parquet", "--share", 0.6,
        "--json",
    )  # fmt: skip
    counts = json.loads(again.stdout)
    assert {name for name, found in counts["methods"].items() if found.get("made")} >= {
        "no_context", "evidence_removed", "truncated", "context_swapped", "noise_passages",
        "distracted", "number_swapped", "entity_swapped", "negated", "false_premise",
        "underspecified",
    }  # fmt: skip
    assert "without a writer (a model's address): no rewritten, recombined" in again.stderr
    assert "without a reader (a model's address): no rematched" in again.stderr
    assert (folder / "again.parquet").read_bytes() == (folder / "more.parquet").read_bytes()
    rows = read_rows(folder / "more.parquet")
    assert abs(sum(not row.sufficient for row in rows) / len(rows) - 0.6) < 0.01


def test_twins_stay_and_nothing_crosses_a_fold(folder: Path) -> None:
    rows = {row.id: row for row in read_rows(folder / "more.parquet")}
    original = {row.id for row in read_rows(folder / "rows.parquet")}
    assert original <= set(rows)
    documents: dict[str, str] = {}
    for row in rows.values():
        assert documents.setdefault(row.document_id, row.fold) == row.fold
        if row.parent_id:
            assert rows[row.parent_id].fold == row.fold and rows[row.parent_id].sufficient
            assert row.votes


def test_the_contrast_set_is_answerable_and_of_test_documents(folder: Path) -> None:
    found = read_rows(folder / "more.contrast.parquet")
    assert {row.method for row in found} >= {"contrast_doubted", "contrast_distracted"}
    for row in found:
        assert row.sufficient and row.fold == "test"
        for answer, start in zip(row.answers, row.answer_starts, strict=True):
            assert row.context[start : start + len(answer)] == answer


def test_split_keeps_the_folds_and_writes_a_whole_data_set(folder: Path) -> None:
    rows = {row.id: row.fold for row in read_rows(folder / "more.parquet")}
    found = splits(folder / "set")
    for fold, members in found.items():
        assert {rows[row.id] for row in members} == {fold}
    written = sum(map(len, found.values()))
    assert written + len(dropped(folder / "set")) == len(rows)
    loaded = load_dataset(str(folder / "set"))
    assert {fold: len(members) for fold, members in found.items()} == dict(loaded.num_rows)
    contrast = load_dataset(str(folder / "set"), "contrast")
    assert len(contrast["train"]) == len(read_rows(folder / "set" / "contrast.parquet"))
    card = DatasetCard.load(folder / "set" / "README.md")
    assert card.data.task_categories == ["question-answering"]
    card.validate  # noqa: B018, the Hub's own check needs the network; parsing is ours


def test_a_second_split_keeps_the_folds_of_the_first(folder: Path, tmp_path: Path) -> None:
    rows = [make_row(f"Q{n}?", f"context {n} of its own", ["own"], f"d{n}", fold="")
            for n in range(40)]  # fmt: skip
    write_table(to_table(rows[:20]), tmp_path / "a.parquet")
    write_table(to_table(rows), tmp_path / "b.parquet")
    before: dict[str, str] = {}
    for name in ("a", "b"):
        done = curate("split", tmp_path / f"{name}.parquet", "--out", tmp_path / "set")
        assert done.returncode == 0, done.stderr
        ledger = json.loads((tmp_path / "set" / "folds.json").read_text())["documents"]
        assert {document: ledger[document] for document in before} == before
        before = ledger
    assert len(before) == 40


def test_a_document_in_two_folds_is_refused(tmp_path: Path) -> None:
    rows = [make_row("Q?", "one context", ["one"], "d", fold="train"),
            make_row("R?", "another context", ["another"], "d", fold="test")]  # fmt: skip
    write_table(to_table(rows), tmp_path / "rows.parquet")
    done = curate("split", tmp_path / "rows.parquet", "--out", tmp_path / "set")
    assert done.returncode == 1 and f"and by row {rows[1].id} in test; a document has one fold" in (
        done.stderr
    )
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_audit_leaks_finds_none_here_and_those_of_an_outside_file(folder: Path) -> None:
    done = curate("audit", "leaks", folder / "set")
    assert (done.returncode, done.stdout[:7]) == (0, "no leak")
    outside = curate(
        "audit", "leaks", folder / "set", "--against", folder / "rows.parquet", "--json"
    )
    assert outside.returncode == 1
    assert {leak["kind"] for leak in json.loads(outside.stdout)} == {"n_gram"}


def test_audit_shortcuts_names_what_tells_and_holds_a_limit(folder: Path) -> None:
    done = curate("audit", "shortcuts", folder / "set", "--json")
    found = {each["features"]: each for each in json.loads(done.stdout)}
    assert set(found) == {"question alone", "context alone", "overlap alone"}
    # "Who built …" is never answered here, and the audit must see it.
    assert found["question alone"]["auroc"]["value"] > 0.7
    strict = curate("audit", "shortcuts", folder / "set", "--limit", 0.7)
    assert strict.returncode == 1 and "question alone" in strict.stdout


def test_a_recipe_with_a_limit_holds_it_or_fails(tmp_path: Path) -> None:
    rows = [
        make_row(f"Who{' never' if n % 4 == 1 else ''} left town {n % 9} then?",
                 f"Ada {n} left town {n % 9} by gate {n}.",
                 [f"Ada {n}"] if n % 2 == 0 else [], f"d{n}", fold="")
        for n in range(400)
    ]  # fmt: skip
    write_table(to_table(rows), tmp_path / "rows.parquet")
    settings: dict[str, Any] = {"insufficient": {"methods": []}}
    for balance in (False, True):
        recipe = write_recipe(
            tmp_path / "r.yaml", {"kind": "table", "path": "rows.parquet"},
            split={"shortcut_limit": 0.7, "balance": balance}, **settings,
        )  # fmt: skip
        done = curate("build", recipe, "--out", tmp_path / "set")
        if balance:
            assert done.returncode == 0, done.stderr
            gone = [d for d in dropped(tmp_path / "set") if d.step == "shortcuts"]
            assert gone and all(d.drop_reason == "shortcut" for d in gone)
            assert {d.row.fold for d in gone} == {"train"}
        else:
            assert done.returncode == 1
            assert "question alone: 0." in done.stderr and "never" in done.stderr
            assert not (tmp_path / "set" / "manifest.json").exists()


def test_labels_are_judged_at_a_terminal_and_kept_when_it_is_left(folder: Path) -> None:
    """A real terminal: two rows judged, one key that means nothing, then out."""
    import pty

    path = folder / "set" / "judgements.jsonl"
    main, side = pty.openpty()
    command = [str(BIN / "curate"), "audit", "labels", str(folder / "set"), "--sample", "1"]
    with subprocess.Popen(
        command, stdin=side, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT
    ) as process:
        os.write(main, b"y\nx\nn\nq\n")
        told, errors = process.communicate(timeout=120)
    os.close(main)
    os.close(side)
    assert process.returncode == 0, errors
    rows = {row.id: row for row in read_rows(folder / "set")}
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    said = [(one["verdict"] == "right") == rows[one["id"]].sufficient for one in kept]
    assert said == [True, False]
    shown = told.decode()
    assert shown.count("does the context answer it") >= 3 and "precision, 95 %" in shown
    path.unlink()


def judged(folder: Path, verdict: str, rows: list[Row]) -> None:
    with (folder / "judgements.jsonl").open("a") as file:
        for row in rows:
            value = {"id": row.id, "content_hash": row.content_hash, "method": row.method}
            file.write(json.dumps({**value, "verdict": verdict}) + "\n")


def test_judged_labels_reach_report_and_card(folder: Path) -> None:
    rows = [row for row in read_rows(folder / "set") if row.method == "no_context"]
    judged(folder / "set", "right", rows[:3])
    judged(folder / "set", "wrong", rows[3:4])
    done = curate("audit", "labels", folder / "set", "--json")
    (found,) = json.loads(done.stdout)
    assert (found["judged"], found["right"], found["value"]) == (4, 3, 0.75)
    done = curate("report", folder / "set")
    assert done.returncode == 0, done.stderr
    assert "`no_context`: 3 of 4 labels" in (folder / "set" / "README.md").read_text()
    assert "0.750 [" in (folder / "set" / "report.html").read_text()
