"""API keys: shown once when they are made, kept as hashes in a file that only its owner reads."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from curate.annotate.label_studio.keyring import write_secret
from curate.errors import UserError
from curate.files import exists, read_json

Scope = Literal["ask", "people"]  # to ask questions; and to answer those in the queue as well
FILE = "keys.json"
_PREFIX = "ga-"


@dataclass(frozen=True)
class Key:
    """Who holds a key, and what it is good for."""

    name: str
    scope: Scope


class Keys:
    """The keys of a service."""

    def __init__(self, state: Path) -> None:
        """``state`` is the service's folder."""
        self.path = state / FILE
        self._seen: tuple[float, dict[str, Key]] | None = None

    def make(self, name: str, scope: Scope) -> str:
        """A new key; nobody can read it again. Raises `UserError` for a name that is taken."""
        known = self._known()
        if any(key.name == name for key in known.values()):
            raise UserError(f"{self.path}: there is a key '{name}' already; remove it first")
        secret = _PREFIX + secrets.token_urlsafe(32)
        self._write(known | {_hash(secret): Key(name, scope)})
        return secret

    def remove(self, name: str) -> None:
        """Take a key's rights away at once."""
        known = self._known()
        left = {hashed: key for hashed, key in known.items() if key.name != name}
        if len(left) == len(known):
            raise UserError(f"{self.path}: there is no key '{name}'")
        self._write(left)

    def names(self) -> list[Key]:
        """All holders."""
        return list(self._known().values())

    def holder(self, secret: str) -> Key | None:
        """Whose key this is."""
        hashed = _hash(secret)
        found = [key for known, key in self._known().items() if hmac.compare_digest(known, hashed)]
        return found[0] if found else None

    def _known(self) -> dict[str, Key]:
        if not exists(self.path):
            return {}
        changed = self.path.stat().st_mtime_ns
        if self._seen is None or self._seen[0] != changed:  # removed while the server runs
            stored = read_json(self.path)
            try:
                found = {hashed: Key(**key) for hashed, key in stored.items()}
            except (AttributeError, TypeError) as error:
                raise UserError(f"{self.path}: damaged ({error}); make the keys anew") from error
            self._seen = (changed, found)
        return self._seen[1]

    def _write(self, keys: dict[str, Key]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_secret(self.path, {h: {"name": k.name, "scope": k.scope} for h, k in keys.items()})


def _hash(secret: str) -> str:
    # A key holds 256 random bits: a plain hash cannot be reversed by guessing.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
