"""Tables: JSONL, CSV, Parquet and the hub, one question a row."""

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.errors import UserError
from curate.record import NOT_A_SPAN, Row, to_table, write_table
from curate.sources import table

CONTEXT = "Ada met Bob. Ada left."


def jsonl(tmp_path: Path, *values: Any) -> list[Row]:
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return list(table.read(str(path), "t"))


def csv(tmp_path: Path, text: str, **options: Any) -> list[Row]:
    (tmp_path / "t.csv").write_text(text, newline="")
    return list(table.read(str(tmp_path / "t.csv"), "t", **options))


def test_every_field_of_a_json_line_is_taken_over(tmp_path: Path) -> None:
    value = {
        "question": "Who left?", "context": CONTEXT, "answers": ["Ada", "she"],
        "answer_starts": [13, -1], "sufficient": True, "document_id": "D", "source_id": "S",
        "history": [{"role": "user", "content": "Hi"}], "url": "u", "licence": "L",
        "language": "de",
    }  # fmt: skip
    (row,) = jsonl(tmp_path, value)
    expected = {**value, "document_id": "t/D", "source": "t", "reason": ""}
    assert {name: getattr(row, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("given_fields", "sufficient", "reason", "answers"),
    [
        ({"answers": ["Ada"]}, True, "", ["Ada"]),
        ({"answers": "Ada"}, True, "", ["Ada"]),
        ({"answers": 1903}, True, "", ["1903"]),
        ({}, None, "", []),
        ({"answers": []}, None, "", []),
        ({"answers": None, "sufficient": None}, None, "", []),
        ({"sufficient": False}, False, "unlabelled", []),
        ({"sufficient": "No", "reason": "false_premise"}, False, "false_premise", []),
        ({"sufficient": 0, "answers": ["Ada"]}, False, "unlabelled", []),
        ({"sufficient": "1", "answers": ["Ada"]}, True, "", ["Ada"]),
        ({"sufficient": True}, True, "", []),
    ],
)
def test_label_is_read_or_follows_from_the_answers(
    tmp_path: Path, given_fields: dict[str, Any], sufficient: bool, reason: str, answers: list[str]
) -> None:
    (row,) = jsonl(tmp_path, {"question": "Who?", "context": CONTEXT, **given_fields})
    assert (row.sufficient, row.reason, row.answers) == (sufficient, reason, answers)


def test_missing_offsets_are_looked_up(tmp_path: Path) -> None:
    (row,) = jsonl(tmp_path, {"question": "Who?", "context": CONTEXT, "answers": ["Bob", "he"]})
    assert row.answer_starts == [CONTEXT.index("Bob"), NOT_A_SPAN]


def test_answers_in_the_flat_form_keep_their_offsets(tmp_path: Path) -> None:
    flat = {"text": ["Ada"], "answer_start": [13]}
    (row,) = jsonl(tmp_path, {"question": "Who?", "context": CONTEXT, "answers": flat})
    assert (row.answers, row.answer_starts) == (["Ada"], [13])


def test_half_an_emoji_does_not_stop_the_import(tmp_path: Path) -> None:
    (row,) = jsonl(tmp_path, {"question": "Who \ud83d?", "context": "😀"})
    assert to_table([row])["question"].to_pylist() == ["Who \ufffd?"]


def test_rows_without_ids_keep_theirs_and_their_document_when_others_are_put_before(
    tmp_path: Path,
) -> None:
    values = [{"question": "A?", "context": CONTEXT}, {"question": "B?", "context": CONTEXT}]
    values += [{"question": "C?"}, {"question": "D?"}]
    rows = jsonl(tmp_path, *values)
    assert len({row.id for row in rows}) == 4
    assert rows[0].document_id == rows[1].document_id  # one context, one document
    assert len({row.document_id for row in rows}) == 3
    later = jsonl(tmp_path, {"question": "New?"}, *values)
    assert [(row.id, row.document_id) for row in later[1:]] == [
        (row.id, row.document_id) for row in rows
    ]


def test_csv_cells_may_hold_line_breaks_quotes_and_lists(tmp_path: Path) -> None:
    text = (
        "question,context,answers,sufficient\r\n"
        '"Who, then?","He said ""Ada"".\nIt rained.","[""Ada"", ""It rained""]",\r\n'
        "What?,It rained.,It rained,yes\r\n"
        "Why?,It rained.,,false\r\n"
    )
    rows = csv(tmp_path, text)
    assert [row.question for row in rows] == ["Who, then?", "What?", "Why?"]
    assert rows[0].context == 'He said "Ada".\nIt rained.'
    assert [row.answers for row in rows] == [["Ada", "It rained"], ["It rained"], []]
    assert [row.sufficient for row in rows] == [True, True, False]


def test_csv_cell_of_any_length_is_read(tmp_path: Path) -> None:
    (row,) = csv(tmp_path, f"question,context\nWho?,{'x' * 300_000}\n")
    assert len(row.context) == 300_000


def test_columns_of_other_names_are_mapped_even_when_they_swap(tmp_path: Path) -> None:
    text = "q,question,gold\nWho?,Ada left.,Ada\n"
    names = {"question": "q", "context": "question", "answers": "gold"}
    (row,) = csv(tmp_path, text, columns=names)
    assert (row.question, row.context, row.answers) == ("Who?", "Ada left.", ["Ada"])
    (row,) = csv(tmp_path, "context,question\nWho?,Ada left.\n",
                 columns={"question": "context", "context": "question"})  # fmt: skip
    assert (row.question, row.context) == ("Who?", "Ada left.")


def test_parquet_is_read_and_rows_of_ours_come_back(tmp_path: Path) -> None:
    ours = make_row("Who?", CONTEXT, ["Ada"], answer_starts=[13], url="u", licence="L")
    write_table(to_table([ours]), tmp_path / "t.parquet")
    (row,) = table.read(str(tmp_path / "t.parquet"), "t", licence="other")
    assert (row.question, row.context, row.answers) == (ours.question, ours.context, ours.answers)
    assert (row.answer_starts, row.url, row.licence) == ([13], "u", "L")


def test_hub_folder_is_read_as_a_table(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    values = [{"question": f"Q{n}?", "context": CONTEXT, "answers": ["Bob"]} for n in range(3)]
    pq.write_table(pa.Table.from_pylist(values), folder / "train.parquet")
    rows = list(table.read(f"hub:{folder}", "set", columns={"question": "question"}))
    assert [row.question for row in rows] == ["Q0?", "Q1?", "Q2?"]
    assert rows[0].answer_starts == [CONTEXT.index("Bob")]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"context": "x"}, "line 2: 'question' is missing or empty"),
        ({"question": " "}, "line 2: 'question' is missing or empty"),
        ({"question": ["x"]}, "line 2: 'question' must be a text, found ['x']"),
        ({"sufficient": "perhaps"}, "line 2: 'sufficient' must be true, false or empty"),
        ({"sufficient": False, "reason": "tricky"}, "line 2: 'reason' is 'tricky', which is none"),
        ({"answers": ["a", "b"], "answer_starts": [1]}, "line 2: 2 'answers' but 1 'answer_s"),
        ({"answers": ["a"], "answer_starts": ["x"]}, "line 2: 'answer_starts' must be whole"),
        ({"answers": ["a"], "answer_starts": [1e999]}, "line 2: 'answer_starts' must be whole"),
        ({"answers": [None]}, "line 2: 'answers' must be texts, found [None]"),
        ({"answers": "[broken"}, "line 2: 'answers' looks like a JSON list, but is none"),
        ({"history": ["hello"]}, "line 2: 'history' must be a list of {role, content}"),
        ({"history": [{"role": "user"}]}, "line 2: 'history' must be a list of {role, content}"),
    ],
)  # fmt: skip
def test_wrong_value_is_named_with_its_line(tmp_path: Path, value: Any, message: str) -> None:
    wrong = value if "context" in value else {"question": "Q?", **value}
    with pytest.raises(UserError, match=re.escape(f"t.jsonl: {message}")):
        jsonl(tmp_path, {"question": "Fine?"}, wrong)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.jsonl", b'{"question": "Q?"}\n{"question": \n', "t.jsonl: line 2: not valid JSON"),
        ("t.jsonl", b'{"question": "Q?"}\n\n[1]\n', "t.jsonl: line 3: an object is needed"),
        ("t.csv", b"question,context\nQ?,c\nQ?,c,d\n", "t.csv: line 3: more cells than columns"),
        ("t.csv", b'question,context\nQ?,"never closed\n', "t.csv: line 2: not valid CSV"),
        ("t.csv", b"question\nQ\xff?\n", "t.csv: not valid UTF-8: byte 0xff at offset 10 (line 2)"),
        ("t.parquet", b"PAR1 no more", "t.parquet: not a whole Parquet file"),
        (
            "t.xlsx",
            b"",
            "t.xlsx: a table must end in .jsonl, .json, .csv, .parquet, or start",
        ),
    ],
)
def test_broken_file_is_named_with_the_place(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=re.escape(message)):
        list(table.read(str(tmp_path / name), "t"))


def test_column_mapping_that_fits_neither_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no field quest; fields: question, context"):
        csv(tmp_path, "q\nWho?\n", columns={"quest": "q"})
    with pytest.raises(UserError, match=r"line 2: column 'qq' is missing; it has q"):
        csv(tmp_path, "q\nWho?\n", columns={"question": "qq"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(table.FIELDS), json_values, max_size=6))
def test_any_json_line_is_a_row_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, value: dict[str, Any]
) -> None:
    try:
        (row,) = jsonl(tmp_path_factory.mktemp("t"), value)
    except UserError as error:
        assert "t.jsonl: line 1" in str(error)
    else:
        assert to_table([row]).num_rows == 1


def test_times_are_read_as_iso_and_others_refused(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"question": "Q?", "retrieved_at": "2026-01-31"}')
    (row,) = table.read(str(tmp_path / "t.jsonl"), "t")
    assert row.retrieved_at == "2026-01-31T00:00:00"
    (tmp_path / "t.jsonl").write_text('{"question": "Q?", "retrieved_at": "31.1.2026"}')
    with pytest.raises(UserError, match=r"line 1: 'retrieved_at' must be like 2026-01-31"):
        list(table.read(str(tmp_path / "t.jsonl"), "t"))
