"""What was found once and need not be found again, as long as what it depends on is the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from curate.files import read_json, write_json


def kept(path: Path, of: str, find: Callable[[], Any]) -> Any:
    """What ``find`` gives, as JSON; read from ``path`` where it is there.

    ``of`` is a digest of all that it depends on: with another one it is found anew.
    """
    if path.exists():
        stored = read_json(path)
        if isinstance(stored, dict) and stored.get("of") == of:
            return stored["found"]
    found = find()
    write_json(path, {"of": of, "found": found})
    return found
