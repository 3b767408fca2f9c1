"""A Label Studio server on this machine: loopback only, offline, with an administrator of its own.

`make label-studio` runs this module; the server's own environment is apart from ours, since its
packages are many and pinned.
"""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from curate.annotate.label_studio import keyring
from curate.errors import UserError
from curate.files import read_json

_FIRST_START = 300  # seconds: the first one makes the data base
_SETTINGS = {
    # Nothing leaves the machine, and nobody signs up without an invitation.
    "COLLECT_ANALYTICS": "false",
    "LATEST_VERSION_CHECK": "false",
    "SENTRY_DSN": "",
    "FRONTEND_SENTRY_DSN": "",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK": "true",
    # Our webhook's receiver is on loopback too, where the server would not call otherwise.
    "SSRF_PROTECTION_ENABLED": "false",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true",
}


@dataclass(frozen=True)
class Administrator:
    """Whom the server is made with."""

    email: str
    password: str
    token: str


def administrator(folder: Path) -> Administrator:
    """The one of a data folder; drawn when it is new, and kept where only the owner reads."""
    file = folder / "administrator.json"
    if file.exists():
        return Administrator(**read_json(file))
    made = Administrator("admin@example.org", secrets.token_urlsafe(12), secrets.token_hex(20))
    keyring.write_secret(file, asdict(made))
    return made


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    address: str
    owner: Administrator
    process: "subprocess.Popen[bytes]"


@contextlib.contextmanager
def serving(executable: Path, folder: Path, port: int) -> Iterator[Running]:
    """Start the server, wait until it answers, and stop it in the end."""
    if not executable.exists():
        raise UserError(f"{executable}: Label Studio is not installed; run `make label-studio`")
    folder = folder.resolve()
    owner = administrator(folder)
    address = f"http://127.0.0.1:{port}"
    _refuse_taken(port)
    command = [str(executable), "start", "--no-browser", "--internal-host", "127.0.0.1"]
    command += ["-p", str(port), "--data-dir", str(folder), "--enable-legacy-api-token"]
    environment = os.environ | _SETTINGS | {"LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    # By the environment, since every user of the machine sees a command's arguments.
    environment |= {
        "LABEL_STUDIO_USERNAME": owner.email,
        "LABEL_STUDIO_PASSWORD": owner.password,
        "LABEL_STUDIO_USER_TOKEN": owner.token,
    }
    log = folder / "server.log"
    with log.open("ab") as output:
        server = subprocess.Popen(  # noqa: S603 - the executable is the caller's
            command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL
        )
    try:
        _wait(server, address, log)
        yield Running(address, owner, server)
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _refuse_taken(port: int) -> None:
    """Label Studio would go to another port without a word, and whoever is there would answer."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(
                f"port {port} is taken ({error.strerror}): a server runs there already, or give "
                "another one, as in `make label-studio PORT=8081`"
            ) from error


def _wait(server: "subprocess.Popen[bytes]", address: str, log: Path) -> None:
    end = time.monotonic() + _FIRST_START
    while time.monotonic() < end:
        if server.poll() is not None:
            raise UserError(f"Label Studio ended with code {server.returncode}; it says why: {log}")
        with (
            contextlib.suppress(OSError),
            urllib.request.urlopen(f"{address}/health", timeout=5) as answer,  # noqa: S310
        ):
            if json.load(answer).get("status") == "UP":
                return
        time.sleep(0.5)
    raise UserError(f"Label Studio does not answer after {_FIRST_START} seconds; see {log}")


@click.command()
@click.argument("executable", type=click.Path(path_type=Path))
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Its data.")
@click.option("--port", default=8080, show_default=True)
def main(executable: Path, folder: Path, port: int) -> None:
    """Serve until interrupted, and let `curate annotate` know the token."""
    click.echo("starting Label Studio (the first time takes a minute) …")
    try:
        with serving(executable, folder, port) as running:
            kept = keyring.keep(running.address, running.owner.token)
            click.echo(
                f"{running.address}\n  log in as {running.owner.email}, password "
                f"{running.owner.password}\n"
                f"  the token for `curate annotate` is in {kept}\n  Ctrl-C stops the server"
            )
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            signal.pause()
    except KeyboardInterrupt:
        click.echo("stopped")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
