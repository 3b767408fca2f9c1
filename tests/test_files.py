"""Reading and writing: nothing is lost, and every bad byte is named."""

import hashlib
import json
from pathlib import Path

import pytest

from curate import files
from curate.errors import UserError


def test_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")
    with pytest.raises(UserError, match=r"kept.txt"), files.replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise OSError(28, "No space left on device")
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_interrupted_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "kept.txt"
    files.write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as temporary:
        temporary.write_text("half of the ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]


def test_nan_is_refused_in_json_and_the_old_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "numbers.json"
    files.write_json(path, {"x": 1.5, "name": "Ærø"})
    with pytest.raises(ValueError, match=r"[Nn]a[Nn]|JSON compliant"):
        files.write_json(path, {"x": float("nan")})
    assert files.read_json(path) == {"x": 1.5, "name": "Ærø"}


def test_file_below_a_file_says_that_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("x")
    with pytest.raises(UserError, match=r"cannot write .*plain/deeper/new.txt: .*folder is needed"):
        files.write_text(tmp_path / "plain" / "deeper" / "new.txt", "y")


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte-order mark"])
def test_byte_that_is_not_utf8_is_named_by_offset_and_line(tmp_path: Path, mark: bytes) -> None:
    raw = mark + "první\n".encode() * 200 + b"druh\xe9 slovo\n"
    path = tmp_path / "latin.txt"
    path.write_bytes(raw)
    with pytest.raises(UserError) as caught:
        files.read_text(path)
    message = str(caught.value)
    assert str(path) in message
    assert f"byte 0xe9 at offset {raw.index(0xE9):,} (line 201)" in message


def test_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "marked.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert files.read_json(tmp_path / "marked.json") == {"a": 1}


def test_broken_json_is_named_by_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"a": 1,\n "b": 2 3,\n "c": 4}')
    with pytest.raises(UserError, match=r"broken.json: .* line 2 column 9") as caught:
        files.read_json(path)
    assert "cut off" not in str(caught.value)


@pytest.mark.parametrize("kept", [5, 12, 20, 30])
def test_json_that_breaks_off_is_said_to_be_cut(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.json"
    path.write_text(json.dumps({"a": "some text", "b": [1, 2, {"c": None}]})[:kept])
    with pytest.raises(UserError, match="cut off"):
        files.read_json(path)


def test_json_nested_without_end_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = tmp_path / "deep.json"
    path.write_text("[" * 200_000)
    with pytest.raises(UserError, match=r"deep.json"):
        files.read_json(path)


def test_half_an_emoji_becomes_the_replacement_character_and_a_whole_one_stays(
    tmp_path: Path,
) -> None:
    path = tmp_path / "emoji.json"
    path.write_text(r'{"cut \ud83d": ["\ude00 x", "whole \ud83d\ude00", "\\ud83d"]}')
    assert files.read_json(path) == {"cut \ufffd": ["\ufffd x", "whole 😀", "\\ud83d"]}


def test_hash_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(b"x" * 3_000_000).hexdigest()


def test_hash_of_a_folder_changes_with_content_name_and_number_of_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_text("1")
    seen = [files.sha256(tmp_path)]
    (tmp_path / "sub" / "a").write_text("2")
    seen.append(files.sha256(tmp_path))
    (tmp_path / "sub" / "a").rename(tmp_path / "sub" / "b")
    seen.append(files.sha256(tmp_path))
    (tmp_path / "sub" / "empty").touch()
    seen.append(files.sha256(tmp_path))
    assert len(set(seen)) == 4
