"""`abstain serve` as a user starts it: on a free port of loopback, stopped by its process id."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from helpers import BIN, ENVIRONMENT
from label_studio import free_port

ANSWERS_ALL = "rules: [{action: answer}, {action: escalate}]\n"


@dataclass
class Served:
    """A server that answers."""

    address: str
    process: "subprocess.Popen[bytes]"
    state: Path

    def ask(self, question: str, context: str = "", **more: Any) -> dict[str, Any]:
        """The decision on one question."""
        body = {"question": question, "context": context, **more}
        answer = httpx.post(f"{self.address}/v1/ask", json=body, timeout=60)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@contextlib.contextmanager
def serving(
    run: object, state: Path, policy: str = ANSWERS_ALL, *options: object, **environment: str
) -> Iterator[Served]:
    """Start it, wait until it is ready, and stop it in the end."""
    state.mkdir(parents=True, exist_ok=True)
    (state / "policy.yaml").write_text(policy)
    port = free_port()
    command = [str(BIN / "abstain"), "serve", str(run), "--port", str(port)]
    command += ["--state", str(state), "--policy", str(state / "policy.yaml"), *map(str, options)]
    with (state / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**ENVIRONMENT, **environment}
        )
    address = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + 120
        while True:
            assert process.poll() is None, (state / "server.log").read_text()
            assert time.monotonic() < end, "it does not get ready"
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{address}/readyz", timeout=2).status_code == 200:
                    break
            time.sleep(0.2)
        yield Served(address, process, state)
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            process.wait(60)
