"""SQuAD 1.1 and 2.0: the official file, and the flat form of the hub."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate_helpers import SHARED, stations, write_json

from curate.errors import UserError
from curate.record import NOT_A_SPAN, Row, to_table
from curate.sources import squad


def official(path: Path, **question: Any) -> Path:
    """A file of one question; a field given as None is left out."""
    asked = {"id": "q1", "question": "Who?", "answers": [{"text": "Ada", "answer_start": 0}]}
    asked = {key: value for key, value in (asked | question).items() if value is not None}
    paragraph = {"context": "Ada left.", "qas": [asked]}
    return write_json(path, {"data": [{"title": "T", "paragraphs": [paragraph]}]})


def read_one(path: Path, **question: Any) -> Row:
    (row,) = squad.read(str(official(path, **question)), "mine", "CC0-1.0")
    return row


def test_answerable_question_of_squad_1_becomes_a_sufficient_row(tmp_path: Path) -> None:
    row = read_one(tmp_path / "s.json")
    assert (row.question, row.context, row.sufficient) == ("Who?", "Ada left.", True)
    assert (row.answers, row.answer_starts, row.reason) == (["Ada"], [0], "")
    assert (row.source, row.source_id, row.document_id) == ("mine", "q1", "mine/T")
    assert (row.licence, row.method, row.fold) == ("CC0-1.0", "human", "")
    assert row.id
    assert row.content_hash == row.current_content_hash()


def test_impossible_question_becomes_an_unlabelled_insufficient_row(tmp_path: Path) -> None:
    row = read_one(tmp_path / "s.json", is_impossible=True, answers=[])
    assert (row.sufficient, row.reason, row.answers) == (False, "unlabelled", [])


def test_reason_code_in_the_file_is_kept_and_a_foreign_one_refused(tmp_path: Path) -> None:
    row = read_one(tmp_path / "s.json", is_impossible=True, reason="false_premise")
    assert row.reason == "false_premise"
    with pytest.raises(UserError, match=r"qas\[0\].reason: 'tricky' is none of unlabelled, "):
        read_one(tmp_path / "s.json", is_impossible=True, reason="tricky")


def test_number_as_id_is_accepted(tmp_path: Path) -> None:
    assert read_one(tmp_path / "s.json", id=17).source_id == "17"


@pytest.mark.parametrize("start", [-(10**30), -5, 10**30])
def test_offset_beyond_all_bounds_still_fits_the_table(tmp_path: Path, start: int) -> None:
    row = read_one(tmp_path / "s.json", answers=[{"text": "Ada", "answer_start": start}])
    assert row.answer_starts != [NOT_A_SPAN]
    assert to_table([row]).num_rows == 1


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ({"question": None}, "qas[0]: field 'question' is missing"),
        ({"id": None}, "qas[0]: field 'id' is missing"),
        ({"answers": None}, "qas[0]: field 'answers' is missing"),
        ({"question": 3}, "qas[0].question: str is needed, found 3"),
        ({"answers": {"text": "Ada"}}, "qas[0].answers: list is needed"),
        ({"answers": ["Ada"]}, "qas[0].answers[0]: an object is needed, found str"),
        ({"answers": [{"text": "Ada"}]}, "qas[0].answers[0]: field 'answer_start' is missing"),
        (
            {"answers": [{"text": "Ada", "answer_start": "0"}]},
            "qas[0].answers[0].answer_start: int is needed, found '0'",
        ),
        (
            {"answers": [{"text": "Ada", "answer_start": True}]},
            "qas[0].answers[0].answer_start: int is needed, found True",
        ),
        ({"is_impossible": "no"}, "qas[0].is_impossible: bool is needed, found 'no'"),
    ],
)
def test_wrong_field_is_named_with_its_place(
    tmp_path: Path, question: dict[str, Any], place: str
) -> None:
    path = tmp_path / "s.json"
    with pytest.raises(UserError, match=re.escape(f"{path}: data[0].paragraphs[0].{place}")):
        read_one(path, **question)


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ([], "top level: an object is needed, found list"),
        ({"version": "v2.0"}, "top level: field 'data' is missing"),
        ({"data": [{"title": "T"}]}, "data[0]: field 'paragraphs' is missing"),
        ({"data": [{"paragraphs": []}]}, "data[0]: field 'title' is missing"),
        ({"data": [{"title": "T", "paragraphs": [{"qas": []}]}]}, "paragraphs[0]: field 'context'"),
        ({"data": {"a": 1}}, "top level.data: list is needed"),
    ],
)
def test_wrong_structure_is_named_with_its_place(tmp_path: Path, value: Any, place: str) -> None:
    path = write_json(tmp_path / "s.json", value)
    with pytest.raises(UserError, match=re.escape(str(path)) + ".*" + re.escape(place)):
        list(squad.read(str(path), "mine"))


def flat(value: dict[str, Any]) -> list[dict[str, Any]]:
    """An official file in the hub's flat form."""
    return [
        {
            "id": question["id"],
            "title": article["title"],
            "context": paragraph["context"],
            "question": question["question"],
            "answers": {
                "text": [answer["text"] for answer in question["answers"]],
                "answer_start": [answer["answer_start"] for answer in question["answers"]],
            },
        }
        for article in value["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]


@pytest.fixture
def hub_folder(tmp_path: Path) -> Path:
    """A local folder as `datasets.load_dataset` takes it, with two splits."""
    folder = tmp_path / "towns"
    folder.mkdir()
    rows = flat(stations(3))
    pq.write_table(pa.Table.from_pylist(rows[:40]), folder / "train-00000-of-00001.parquet")
    pq.write_table(pa.Table.from_pylist(rows[40:]), folder / "validation-00000-of-00001.parquet")
    return folder


def test_hub_form_gives_the_same_rows_as_the_official_file(
    tmp_path: Path, hub_folder: Path
) -> None:
    path = write_json(tmp_path / "official.json", stations(3))
    from_file = list(squad.read(str(path), "towns", "CC0-1.0"))
    from_hub = list(squad.read(f"hub:{hub_folder}", "towns", "CC0-1.0"))
    assert len(from_file) == 60
    assert from_hub == from_file


def test_one_split_of_a_hub_set_can_be_named(hub_folder: Path) -> None:
    assert len(list(squad.read(f"hub:{hub_folder}@validation", "towns"))) == 20
    with pytest.raises(UserError, match="no split 'test'; there are train, validation"):
        list(squad.read(f"hub:{hub_folder}@test", "towns"))


def test_hub_set_without_titles_has_a_document_for_each_context(tmp_path: Path) -> None:
    rows = [{key: v for key, v in row.items() if key != "title"} for row in flat(stations(2))]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    found = list(squad.read(f"hub:{tmp_path}", "towns"))
    assert len({row.document_id for row in found}) == len({row.context for row in found}) == 8


def test_wrong_row_of_a_hub_set_is_named(tmp_path: Path) -> None:
    rows = flat(stations(1))
    rows[3]["answers"]["answer_start"] = []
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"\(train, row 3\).answers: lists 'text'"):
        list(squad.read(f"hub:{tmp_path}", "towns"))


@pytest.mark.parametrize(
    ("name", "rows", "unanswerable"),
    [("squad-v2-visible.json", 4191, 2110), ("squad-v1.1-xquad-en.json", 1077, 0)],
)
def test_real_files_are_read_whole_and_every_offset_is_right(
    name: str, rows: int, unanswerable: int
) -> None:
    if not (SHARED / name).exists():
        pytest.skip(f"no {SHARED / name} here: real data is not part of the project")
    found = list(squad.read(str(SHARED / name), "squad"))
    assert (len(found), sum(not row.sufficient for row in found)) == (rows, unanswerable)
    assert len({row.id for row in found}) == rows
    for row in found:
        for answer, start in zip(row.answers, row.answer_starts, strict=True):
            assert row.context[start : start + len(answer)] == answer
