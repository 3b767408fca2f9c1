"""The whole build: every row accounted for, a folder that others can read, folds that stay."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from bs4 import BeautifulSoup
from curate_helpers import dropped, hashes, make_row, splits, stations, write_json, write_recipe

from curate import pipeline, report
from curate.record import PASSAGE_SCHEMA, Row, passages_from_table, read_rows, read_table

FAQ = """<html><body><h1>Help</h1>
<details><summary>Where is the lost property office?</summary><p>At gate <b>G1</b>.</p></details>
<details><summary>May dogs come along?</summary><p>Yes, on a lead.</p></details></body></html>"""
PAGE = """<html><body><main><h1>Rules</h1><p>Bikes must be locked.</p>
<h2>Night</h2><p>Lamps are compulsory at night.</p></main></body></html>"""
TABLE = """question,context,answers,answer_starts,sufficient,document_id
Is x < 3 & y > 2?,We know that x < 3 and y > 2.,x < 3 and y > 2,,,maths
What is z?,We know that x < 3 and y > 2.,,,false,maths
Who knows?,We know that x < 3 and y > 2.,,,,maths
Who came?,Ada came.,Bob,[0],true,ada
Who came then?,Ada came.,Ada,,,ada
who CAME then,Ada came!,,,false,ada
Who came first?,Ada came.,Ada,,,ada
Who came FIRST?,Ada came.,Ada,,,ada
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources and the recipe, and in ``out`` what is built from them."""
    folder = tmp_path_factory.mktemp("whole")
    write_json(folder / "stations.json", stations(8))
    (folder / "site").mkdir()
    (folder / "site" / "faq.html").write_text(FAQ)
    (folder / "site" / "rules.html").write_text(PAGE)
    (folder / "extra.csv").write_text(TABLE)
    recipe = write_recipe(
        folder / "recipe.yaml",
        {"kind": "squad", "path": "stations.json", "licence": "CC0-1.0"},
        {"kind": "site", "path": "site", "base_url": "https://example.org"},
        {"kind": "table", "path": "extra.csv"},
    )
    pipeline.build(recipe, folder / "out")
    return folder


@pytest.fixture(scope="module")
def manifest(folder: Path) -> Any:
    return json.loads((folder / "out" / "manifest.json").read_text())


def all_rows(out: Path) -> list[Row]:
    return [row for rows in splits(out).values() for row in rows]


def test_every_step_keeps_or_drops_each_row(folder: Path, manifest: Any) -> None:
    steps = manifest["steps"]
    assert [s["step"] for s in steps] == [
        "read",
        "clean",
        "dedup",
        "folds",
        "insufficient",
        "split",
    ]
    before = 0
    for step in steps:
        assert step["rows_in"] == before
        assert step["rows_in"] + step["created"] == step["kept"] + step["dropped"]
        assert step["dropped"] == sum(step["reasons"].values())
        before = step["kept"]
    assert steps[0]["created"] == 8 * 4 * 5 + 2 + 8
    assert before == len(all_rows(folder / "out"))


def test_dropped_rows_are_all_in_the_file_with_step_and_reason(folder: Path, manifest: Any) -> None:
    gone = dropped(folder / "out")
    counted = Counter((d.step, d.drop_reason) for d in gone)
    assert counted == {
        (step["step"], reason): count
        for step in manifest["steps"]
        for reason, count in step["reasons"].items()
    }
    human = [d for d in gone if d.row.source == "extra" and d.row.method == "human"]
    by_text = {d.row.question: d.drop_reason for d in human}
    assert by_text == {
        "Who came?": "answer_not_found",
        "Who came then?": "contradictory_labels",
        "who CAME then": "contradictory_labels",
        "Who came FIRST?": "exact_duplicate",
        "Who knows?": "unlabelled",
    }


def test_no_row_is_in_two_places_and_none_is_missing(folder: Path, manifest: Any) -> None:
    ids = [row.id for row in all_rows(folder / "out")]
    gone = [d.row.id for d in dropped(folder / "out")]
    created = sum(step["created"] for step in manifest["steps"])
    assert len(set(ids)) == len(ids)
    assert len(ids) + len(gone) == created
    assert not set(ids) & set(gone)


def test_natural_rows_all_stay_and_every_split_meets_the_share(folder: Path) -> None:
    asked = {q["id"] for a in stations(8)["data"] for p in a["paragraphs"] for q in p["qas"]}
    found = splits(folder / "out")
    natural = {r.source_id for rows in found.values() for r in rows if r.method == "human"}
    assert asked <= natural
    for rows in found.values():
        assert abs(sum(not row.sufficient for row in rows) / len(rows) - 0.5) <= 0.05


def test_written_rows_keep_what_the_record_promises(folder: Path) -> None:
    homes: dict[str, str] = {}
    for fold, rows in splits(folder / "out").items():
        for row in rows:
            assert row.fold == fold
            assert homes.setdefault(row.document_id, fold) == fold
            assert not row.context_id or homes.setdefault(row.context_id, fold) == fold
            assert row.content_hash == row.current_content_hash()
            assert bool(row.answers) is row.sufficient is not bool(row.reason)
            for answer, start in zip(row.answers, row.answer_starts, strict=True):
                assert row.context[start : start + len(answer)] == answer
    parents = {row.id: row for row in all_rows(folder / "out") if row.method == "human"}
    derived = [row for row in all_rows(folder / "out") if row.method != "human"]
    assert {row.method for row in derived} >= {"no_context", "evidence_removed", "context_swapped"}
    for row in derived:  # one half is the parent's, the other was edited
        parent = parents[row.parent_id]
        assert (parent.question == row.question) != (parent.context == row.context)


def test_passages_of_the_site_are_written_with_their_folds(folder: Path) -> None:
    table = read_table(folder / "out" / "passages.parquet", PASSAGE_SCHEMA)
    ledger = json.loads((folder / "out" / "folds.json").read_text())["documents"]
    found = {(p.heading, p.url): p for p in passages_from_table(table)}
    assert set(found) == {
        ("Help", "https://example.org/faq.html"),
        ("Rules", "https://example.org/rules.html"),
        ("Rules › Night", "https://example.org/rules.html"),
    }
    assert all(p.fold == ledger[p.document_id] for p in found.values())
    counts = json.loads((folder / "out" / "manifest.json").read_text())["passages"]
    assert counts == {"read": 3, "cleaned": 3, "deduplicated": 3, "kept": 3}


def test_datasets_library_reads_the_splits_of_the_folder(folder: Path, tmp_path: Path) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets

    loaded = datasets.load_dataset(str(folder / "out"), cache_dir=str(tmp_path))
    found = splits(folder / "out")
    assert {name: part["id"] for name, part in loaded.items()} == {
        fold: [row.id for row in rows] for fold, rows in found.items()
    }
    first = found["train"][0]
    assert loaded["train"][0]["context"] == first.context
    assert {v["name"]: v["value"] for v in loaded["train"][0]["votes"]} == first.votes


def test_datasets_library_reads_a_rebuilt_folder_anew(tmp_path: Path) -> None:
    import datasets

    recipe = write_recipe(tmp_path / "recipe.yaml", {"kind": "squad", "path": "stations.json"})
    for documents in (6, 7):
        write_json(tmp_path / "stations.json", stations(documents))
        pipeline.build(recipe, tmp_path / "out")
        for config, name in (("default", "train"), ("contrast", "contrast")):
            loaded = datasets.load_dataset(
                str(tmp_path / "out"), config, split="train", cache_dir=str(tmp_path / "cache")
            )
            assert loaded["id"] == [r.id for r in read_rows(tmp_path / "out" / f"{name}.parquet")]


def test_card_and_manifest_describe_the_files(folder: Path, manifest: Any) -> None:
    files = {
        name: value for name, value in hashes(folder / "out").items() if name != "manifest.json"
    }
    assert manifest["files"] == files
    assert str(folder) not in json.dumps(manifest)
    _, front, card = (folder / "out" / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(front)
    assert (about["license_name"], about["language"]) == ("CC0-1.0", ["en"])
    for fold, rows in splits(folder / "out").items():
        yes = sum(bool(row.sufficient) for row in rows)
        assert f"| {fold} | {len(rows)} | {yes} | {len(rows) - yes} |" in card


def test_report_shows_counts_and_needs_nothing_from_outside(folder: Path) -> None:
    text = (folder / "out" / "report.html").read_text()
    page = BeautifulSoup(text, "lxml")
    assert page.find_all(["script", "link", "img", "iframe", "object", "base"]) == []
    assert page.find_all(src=True) + page.find_all(href=True) == []
    assert "url(" not in text
    assert "@import" not in text
    assert f"{len(all_rows(folder / 'out'))} questions" in page.get_text()
    for reason in ("no_context", "evidence_missing", "answer_not_found 1", "unlabelled 1"):
        assert reason in page.get_text()


def test_report_shows_what_rows_say_and_takes_no_tag_from_them(folder: Path) -> None:
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    row = make_row("Is x < 3 & y > 2?", "<script>alert(1)</script> x < 3 and y > 2.", ["x < 3"])
    page = BeautifulSoup(report.render(manifest, {"train": [row]}, []), "lxml")
    assert page.find_all("script") == []
    assert row.question in page.get_text() and row.context in page.get_text()


def test_finished_folder_is_not_built_again(folder: Path) -> None:
    def state() -> dict[str, int]:
        return {f.name: f.stat().st_mtime_ns for f in (folder / "out").iterdir()}

    before = state()
    again = pipeline.build(folder / "recipe.yaml", folder / "out")
    assert state() == before
    assert again == json.loads((folder / "out" / "manifest.json").read_text())


def test_damaged_file_is_made_again(folder: Path, tmp_path: Path) -> None:
    before = hashes(folder / "out")
    (folder / "out" / "test.parquet").write_bytes(b"damaged")
    pipeline.build(folder / "recipe.yaml", folder / "out")
    assert hashes(folder / "out") == before
    (folder / "out" / "dropped.parquet").unlink()
    pipeline.build(folder / "recipe.yaml", folder / "out")
    assert hashes(folder / "out") == before


def test_fresh_build_and_a_build_elsewhere_give_the_same_bytes(
    folder: Path, tmp_path: Path
) -> None:
    before = hashes(folder / "out")
    pipeline.build(folder / "recipe.yaml", folder / "out", fresh=True)
    assert hashes(folder / "out") == before
    pipeline.build(folder / "recipe.yaml", tmp_path / "elsewhere")
    assert hashes(tmp_path / "elsewhere") == before


@pytest.mark.parametrize("change", ["more documents", "other seed", "fresh and other seed"])
def test_changed_build_keeps_the_folds_of_known_documents(tmp_path: Path, change: str) -> None:
    source = {"kind": "squad", "path": "s.json"}
    write_json(tmp_path / "s.json", stations(6))
    recipe = write_recipe(tmp_path / "r.yaml", source)
    pipeline.build(recipe, tmp_path / "out")
    before = json.loads((tmp_path / "out" / "folds.json").read_text())["documents"]
    old = hashes(tmp_path / "out")
    if change == "more documents":
        more = stations(10)
        more["data"] = more["data"][:0:-1]  # the first one is gone, and the order is another
        write_json(tmp_path / "s.json", more)
    else:
        write_recipe(tmp_path / "r.yaml", source, seed=99)
    pipeline.build(recipe, tmp_path / "out", fresh="fresh" in change)
    after = json.loads((tmp_path / "out" / "folds.json").read_text())["documents"]
    assert {document: after[document] for document in before} == before
    assert hashes(tmp_path / "out") != old
    assert len(after) == (10 if change == "more documents" else 6)
    for fold, rows in splits(tmp_path / "out").items():
        assert all(after[row.document_id] == fold for row in rows)


def test_changed_local_hub_folder_is_built_again(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "table", "path": f"hub:{tmp_path / 'set'}"})
    for count in (8, 12):
        values = [
            {
                "question": f"Who is {n}?",
                "context": f"Keeper{n} it is. So.",
                "answers": f"Keeper{n}",
            }
            for n in range(count)
        ]
        pq.write_table(pa.Table.from_pylist(values), tmp_path / "set" / "train.parquet")
        manifest = pipeline.build(recipe, tmp_path / "out")
        assert manifest["steps"][0]["created"] == count


def test_stream_fold_is_written_where_asked_for_and_gone_where_not(tmp_path: Path) -> None:
    source = {"kind": "squad", "path": "s.json"}
    write_json(tmp_path / "s.json", stations(8))
    shares = {"train": 0.4, "validation": 0.1, "calibration": 0.15, "test": 0.15, "stream": 0.2}
    pipeline.build(write_recipe(tmp_path / "r.yaml", source, folds=shares), tmp_path / "out")
    assert len(splits(tmp_path / "out")["stream"]) > 0
    write_json(tmp_path / "s.json", stations(8, prefix="South"))
    pipeline.build(write_recipe(tmp_path / "r.yaml", source), tmp_path / "out")
    assert "stream" not in splits(tmp_path / "out")


def test_ids_that_a_source_repeats_are_told_apart(tmp_path: Path) -> None:
    value = stations(4)
    for article in value["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                question["id"] = "same"
    write_json(tmp_path / "s.json", value)
    recipe = write_recipe(tmp_path / "r.yaml", {"kind": "squad", "path": "s.json"})
    pipeline.build(recipe, tmp_path / "out")
    rows = all_rows(tmp_path / "out")
    assert len({row.id for row in rows}) == len(rows) > 80
