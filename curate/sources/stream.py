"""Large files item by item, so that memory stays flat on any size."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ijson

from curate.errors import UserError, os_error
from curate.files import decode, parse_json, read_json
from curate.sources.fields import get


def items(path: Path, key: str, form: str) -> Iterator[tuple[str, Any]]:
    """Each item of the list ``key`` of a JSON file, or of the file where ``key`` is empty.

    With a text that says where it stands. What the streaming parser does not read, a slower one
    does, which needs the whole file: it says where the file is broken.
    """
    done = 0
    try:
        with path.open("rb") as file:
            for value in ijson.items(file, f"{key}.item" if key else "item", use_float=True):
                yield _place(path, key, done), value
                done += 1
    except OSError as error:
        raise os_error("read", path, error) from error
    except ijson.JSONError:
        yield from list(_whole(path, key, form))[done:]
        return
    if not done:
        yield from _whole(path, key, form)  # empty, or another format


def _whole(path: Path, key: str, form: str) -> Iterator[tuple[str, Any]]:
    root = read_json(path)
    found = get(root, key, list, f"{path}: top level", form) if key else root
    if not isinstance(found, list):
        raise UserError(f"{path}: a list of objects is needed; a SQuAD file is `kind: squad`")
    yield from ((_place(path, key, number), value) for number, value in enumerate(found))


def json_files(path: Path) -> list[Path]:
    """A JSON file, or those of a folder by their names."""
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path}: no .json file in this folder")
    return files


def _place(path: Path, key: str, number: int) -> str:
    return f"{path}: {key}[{number}]" if key else f"{path}: item {number + 1}"


def lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each object of a JSONL file, gzipped where its name ends in ``.gz``, and where it stands."""
    offset = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            for number, raw in enumerate(file, 1):
                if raw.strip():
                    yield f"{path}: line {number}", _object(raw, path, number, offset)
                offset += len(raw)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: not whole gzip ({error}); fetch or copy it again") from error
    except OSError as error:
        raise os_error("read", path, error) from error


def _object(raw: bytes, path: Path, number: int, offset: int) -> dict[str, Any]:
    try:
        value = parse_json(decode(raw, str(path), offset, number))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: line {number}: not valid JSON: {error.msg}") from error
    except RecursionError as error:
        raise UserError(f"{path}: line {number}: JSON nested too deeply") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: line {number}: an object is needed")
    return value
