"""The record: Parquet and back, hashes, and errors that name file and column."""

import dataclasses
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate_helpers import make_row
from hypothesis import given, settings
from hypothesis import strategies as st

from curate import record
from curate.errors import UserError
from curate.record import Dropped, Passage, Row

# Any text that UTF-8 can hold, NUL and astral characters included.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
names = st.text(string.ascii_lowercase, min_size=1, max_size=8)
rows = st.builds(
    Row,
    question=texts,
    context=texts,
    id=texts,
    content_hash=texts,
    history=st.lists(st.fixed_dictionaries({"role": names, "content": texts}), max_size=3),
    answers=st.lists(texts, max_size=3),
    answer_starts=st.lists(st.integers(-1, 2**40), max_size=3),
    sufficient=st.sampled_from([True, False, None]),
    reason=st.sampled_from(["", *record.REASONS]),
    intensity=st.floats(allow_nan=False),
    votes=st.dictionaries(names, st.floats(0, 1), max_size=3),
    document_id=texts,
    fold=st.sampled_from(["", *record.FOLDS]),
    url=texts,
    language=texts,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, max_size=5))
def test_rows_come_back_from_parquet_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, written: list[Row]
) -> None:
    path = tmp_path_factory.mktemp("round") / "rows.parquet"
    record.write_table(record.to_table(written), path)
    assert record.read_rows(path) == written


@settings(max_examples=30, deadline=None)
@given(st.lists(st.builds(Dropped, rows, texts, texts, texts), max_size=3))
def test_dropped_rows_come_back_with_their_reasons(written: list[Dropped]) -> None:
    assert record.dropped_from_table(record.dropped_to_table(written)) == written


def test_passages_come_back_from_parquet_as_they_went(tmp_path: Path) -> None:
    written = [Passage("Großer Text 🚲", "d", "c", "train", "Heading › Sub", "s", "u", "CC0-1.0")]
    record.write_table(record.passages_to_table(written), tmp_path / "p.parquet")
    table = record.read_table(tmp_path / "p.parquet", record.PASSAGE_SCHEMA)
    assert record.passages_from_table(table) == written


def test_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        made = [make_row(f"Q{i}?", "Some context 🚲.", ["context"], votes={"b": 0.5, "a": 1.0})
                for i in range(50)]  # fmt: skip
        record.write_table(record.to_table(made), tmp_path / name)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_order_in_which_votes_were_cast_does_not_change_the_bytes(tmp_path: Path) -> None:
    for name, votes in (("a", {"x": 1.0, "y": 0.0}), ("b", {"y": 0.0, "x": 1.0})):
        record.write_table(record.to_table([Row("q", "c", votes=votes)]), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("column", ["question", "answers", "votes", "fold"])
def test_missing_column_is_named_with_its_file(tmp_path: Path, column: str) -> None:
    path = tmp_path / "odd.parquet"
    pq.write_table(record.to_table([make_row("q", "c")]).drop_columns([column]), path)
    with pytest.raises(UserError, match=f"odd.parquet: column '{column}' is missing"):
        record.read_rows(path)


def test_files_of_before_there_was_a_weight_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    pq.write_table(record.to_table([make_row("q", "c")]).drop_columns(["weight", "title"]), path)
    (row,) = record.read_rows(path)
    assert (row.weight, row.title) == (1.0, "")


def test_column_of_a_wrong_type_is_named_with_both_types(tmp_path: Path) -> None:
    table = record.to_table([make_row("q", "c")])
    index = table.column_names.index("sufficient")
    path = tmp_path / "odd.parquet"
    pq.write_table(table.set_column(index, "sufficient", pa.array(["yes"])), path)
    with pytest.raises(UserError, match=r"odd.parquet: column 'sufficient' holds string, and bool"):
        record.read_rows(path)


def test_half_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "half.parquet"
    record.write_table(record.to_table([make_row("q", "c")]), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"half.parquet"):
        record.read_rows(path)


def test_rows_edited_with_pandas_are_read_again(tmp_path: Path) -> None:
    import pandas

    rows = [
        make_row("Who wrote it?", "Ada wrote it.", ["Ada"], votes={"judge": 1.0}),
        make_row("When?", "Ada wrote it.", history=[{"role": "user", "content": "Hello"}]),
    ]
    for count in (1, 2):  # with one row, all lists of `history` are empty
        path = tmp_path / f"{count}.parquet"
        record.write_table(record.to_table(rows[:count]), path)
        frame = pandas.read_parquet(path)
        frame["question"] = frame["question"] + " "
        frame.to_parquet(path)
        expected = [dataclasses.replace(row, question=row.question + " ") for row in rows[:count]]
        assert record.read_rows(path) == expected


def test_folder_without_splits_says_how_to_build_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="curate build"):
        record.read_rows(tmp_path)


def test_rows_of_a_folder_come_in_the_order_of_the_folds(tmp_path: Path) -> None:
    for fold in ("stream", "test", "train", "calibration", "validation"):
        one = record.to_table([make_row("q", "c", fold=fold)])
        record.write_table(one, tmp_path / f"{fold}.parquet")
    assert [row.fold for row in record.read_rows(tmp_path)] == list(record.FOLDS)


def test_id_tells_where_a_row_came_from_and_survives_corrections() -> None:
    row = make_row("Who?", "Ada wrote it.", ["Ada"], source_id="7")
    corrected = dataclasses.replace(row, question="Who wrote it?", context="Ada Lovelace wrote it.")
    assert corrected.stamped().id == row.id
    rebuilt = make_row("By whom?", "It was written by Ada.", ["Ada"], source_id="7")
    assert rebuilt.id == row.id
    assert make_row("Who?", "Ada wrote it.", ["Ada"], source_id="8").id != row.id


@pytest.mark.parametrize(
    "change",
    [
        {"source": "other"},
        {"source_id": "other"},
        {"method": "context_swapped"},
        {"parent_id": "other"},
    ],
)
def test_id_depends_on_each_part_of_the_origin(change: dict[str, str]) -> None:
    row = make_row("Who?", "Ada.", ["Ada"])
    assert dataclasses.replace(row, id="", **change).stamped().id != row.id
    assert dataclasses.replace(row, id="").stamped(ordinal=1).id != row.id


@pytest.mark.parametrize(
    "change",
    [
        {"question": "Who wrote it?"},
        {"context": "Ada wrote it!"},
        {"history": [{"role": "user", "content": "Hello"}]},
        {"answers": ["Ada", "she"]},
        {"answers": []},
        {"sufficient": False},
        {"sufficient": None},
        {"reason": "false_premise"},
    ],
)
def test_content_hash_changes_with_texts_answers_and_label(change: dict[str, object]) -> None:
    row = make_row("Who?", "Ada wrote it.", ["Ada"])
    assert dataclasses.replace(row, **change).stamped().content_hash != row.content_hash


def test_content_hash_keeps_history_answers_and_label_apart() -> None:
    said = Row("q", "c", history=[{"role": "a", "content": "b"}])
    accepted = Row("q", "c", answers=["a", "b"])
    split_up = Row("q", "c", answers=["a"], reason="b")
    assert len({row.current_content_hash() for row in (said, accepted, split_up)}) == 3


def test_content_hash_leaves_out_what_is_not_content() -> None:
    row = make_row("Who?", "Ada wrote it.", ["Ada"])
    moved = dataclasses.replace(row, fold="test", url="elsewhere", votes={"judge": 1.0})
    assert moved.stamped().content_hash == row.content_hash
