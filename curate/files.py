"""Reading and writing files so that a crash, a full disk or a bad byte loses nothing."""

import contextlib
import hashlib
import json
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate.errors import UserError, os_error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary neighbour of ``path`` to write, then move it there in one step.

    A reader sees the old file or the new one, never half of either. Where writing fails the
    temporary file is removed, the old one stays, and the failure becomes a `UserError`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise os_error("write", path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def writable_folder(path: Path) -> None:
    """Make a folder and see that it takes files, before hours are spent on what goes into it."""
    probe = path / f".{os.getpid()}.probe"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise os_error("write to the folder", path, error) from error


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; NaN is refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Read a UTF-8 file; a byte that is not UTF-8 is named by its offset and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise os_error("read", path, error) from error
    return decode(raw, str(path))


def decode(raw: bytes, where: str, before: int = 0, line: int = 1) -> str:
    """Bytes as UTF-8 text without a byte-order mark; a byte that is not UTF-8 is named.

    ``before`` bytes of the file came earlier, and ``line`` is the one that ``raw`` begins with.
    """
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The codec counts from behind a byte-order mark.
        offset = error.start + len(raw) - len(error.object)
        line += raw.count(b"\n", 0, offset)
        raise UserError(
            f"{where}: not valid UTF-8: byte 0x{raw[offset]:02x} at offset {before + offset:,} "
            f"(line {line:,}); convert the file to UTF-8, e.g. with iconv, and try again"
        ) from error


_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str) -> Any:
    """Parse JSON; half a surrogate pair (of an emoji cut in two) becomes U+FFFD.

    JSON can write such a half as an escape, but UTF-8, and so Parquet, cannot hold it.
    """
    value = json.loads(text)
    return _without_half_pairs(value) if _SURROGATE.search(text) else value


def _without_half_pairs(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", "\ufffd", value)
    if isinstance(value, list):
        return [_without_half_pairs(item) for item in value]
    if isinstance(value, dict):
        return {_without_half_pairs(key): _without_half_pairs(v) for key, v in value.items()}
    return value


def read_json(path: Path) -> Any:
    """Read a JSON file; where it breaks off or goes wrong is named by line and column."""
    text = read_text(path)
    try:
        return parse_json(text)
    except RecursionError as error:
        raise UserError(f"{path}: JSON nested too deeply to be data of ours") from error
    except json.JSONDecodeError as error:
        cut = len(text.rstrip()) - error.pos <= 1 or "Unterminated" in error.msg
        hint = "; the file seems cut off: fetch or copy it again" if cut else ""
        raise UserError(
            f"{path}: not valid JSON at line {error.lineno:,} column {error.colno:,} "
            f"(character {error.pos:,} of {len(text):,}): {error.msg}{hint}"
        ) from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; a folder that must not be looked into is named."""
    try:
        return path.exists()
    except OSError as error:
        raise os_error("read", path, error) from error


def sha256(path: Path) -> str:
    """Hash a file, or every file below a folder together with its relative name."""
    digest = hashlib.sha256()
    if path.is_dir():
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            digest.update(f"{file.relative_to(path).as_posix()}\0{sha256(file)}\n".encode())
        return digest.hexdigest()
    try:
        with path.open("rb") as file_handle:
            while block := file_handle.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise os_error("read", path, error) from error
    return digest.hexdigest()
