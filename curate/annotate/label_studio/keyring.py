"""Where the token for a server comes from: the environment, or a file that only its owner reads.

A token is never an argument of a command, where other users of the machine and the shell's
history would see it.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any

import platformdirs

from curate.errors import UserError
from curate.files import exists, read_json, replacing

ADDRESS = "http://127.0.0.1:8080"
TOKEN_VARIABLE = "LABEL_STUDIO_API_KEY"  # noqa: S105 - its name, not its value
FILE_VARIABLE = "LABEL_STUDIO_KEYRING"


def path() -> Path:
    """The keyring: a JSON object of tokens by address."""
    chosen = os.environ.get(FILE_VARIABLE)
    return Path(chosen) if chosen else platformdirs.user_config_path("grounded-abstain") / "keys"


def token(address: str) -> str:
    """The token for a server; raises `UserError` where there is none."""
    if given := os.environ.get(TOKEN_VARIABLE, "").strip():
        return sound(given, TOKEN_VARIABLE)
    known = _read().get(address.rstrip("/"))
    if known is None:
        raise UserError(
            f"no token for {address}: put one into {TOKEN_VARIABLE}, or run `curate annotate login "
            f"--url {address}`; Label Studio shows yours under Account & Settings, Access Token"
        )
    return sound(known, str(path()))


def sound(secret: str, where: str) -> str:
    """The token, if it can be sent as one; what it is, is told to nobody, in no error either."""
    if not secret.isascii() or not secret.isprintable() or " " in secret:
        raise UserError(
            f"{where}: holds no token: a token has no spaces, line ends or special characters; "
            "copy it anew from Label Studio's Account & Settings"
        )
    return secret


def keep(address: str, secret: str) -> Path:
    """Keep a token for a server, readable by its owner alone; returns the file."""
    known = _read() | {address.rstrip("/"): sound(secret, "what was given")}
    file = path()
    write_secret(file, known)
    return file


def write_secret(file: Path, value: dict[str, Any]) -> None:
    """Write JSON into a file that has its owner's mode before it has its content."""
    with replacing(file) as temporary:
        number = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as opened:
            opened.write(json.dumps(value, indent=1) + "\n")


def _read() -> dict[str, str]:
    file = path()
    if not exists(file):
        return {}
    if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UserError(f"{file}: others may read these tokens; run: chmod 600 {file}")
    known = read_json(file)
    if not isinstance(known, dict) or not all(isinstance(one, str) for one in known.values()):
        raise UserError(f'{file}: not a keyring, which is {{"http://server:8080": "token"}}')
    return known
