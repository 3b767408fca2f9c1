"""Every response that was paid for, on disk before anyone tries to read it.

A file of JSON lines that is only ever appended to. A crash, a rate limit or a fault of our parser
loses nothing: what was asked before is answered from here, word for word, also what could not be
read then.
"""

import fcntl
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from curate.errors import UserError, os_error


@dataclass(frozen=True)
class Usage:
    """Tokens that were paid for."""

    prompt: int = 0
    completion: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.prompt + other.prompt, self.completion + other.completion)

    @property
    def total(self) -> int:
        """Both together."""
        return self.prompt + self.completion


class Responses:
    """The file; only the places of its lines are held in memory. Close it."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises `UserError` where another process is writing to it."""
        self.path = path
        self.paid = Usage()  # by all that the file holds
        self.torn = 0  # lines that a crash cut off
        self._places: dict[str, list[int]] = defaultdict(list)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = path.open("a+b")
        except OSError as error:
            raise os_error("write", path, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UserError(
                f"{path}: another run is writing to it; wait until it is done"
            ) from error
        self._index()

    def _index(self) -> None:
        self._file.seek(0)
        place, line = 0, b"\n"
        while line := self._file.readline():
            try:
                entry = json.loads(line)
                self._places[entry["key"]].append(place)
                self.paid += _usage(entry["body"])
            except (ValueError, KeyError, TypeError):
                self.torn += 1
            place += len(line)
            last = line
        if place and not last.endswith(b"\n"):
            self._write(b"\n")  # what comes next begins on a line of its own

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def get(self, key: str, attempt: int) -> str | None:
        """The body of a response, as it came; None where nobody has asked for it."""
        places = self._places.get(key, ())
        if attempt >= len(places):
            return None
        self._file.seek(places[attempt])
        return str(json.loads(self._file.readline())["body"])

    def append(self, key: str, body: str) -> None:
        """Keep the next response to a request; it is on the disk when this returns."""
        self._file.seek(0, os.SEEK_END)
        place = self._file.tell()
        self._write(json.dumps({"key": key, "body": body}, ensure_ascii=False).encode() + b"\n")
        self._places[key].append(place)
        self.paid += _usage(body)

    def _write(self, line: bytes) -> None:
        try:
            self._file.write(line)
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise os_error("write", self.path, error) from error

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def _usage(body: str) -> Usage:
    """What a response says of its price; nothing where it is no response."""
    try:
        said: Any = json.loads(body)["usage"]
        return Usage(int(said["prompt_tokens"]), int(said["completion_tokens"]))
    except (ValueError, KeyError, TypeError):
        return Usage()
