"""The embedded model as a server in this process: llama.cpp, on loopback, on a free port."""

import contextlib
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from curate import embedded
from curate.errors import UserError

NAME = "local"  # what stands for its address on a command line
MODEL = "smollm2-135m-q4_1"
TOKENS = 4_096  # a prompt and its answer
_SECONDS = 60  # that a server may take to start, and …
_BYTES_A_SECOND = 50e6  # … as long again as a slow disk takes to read its weights


@contextlib.contextmanager
def serving(parallel: int = 2, threads: int = 0, weights: Path | None = None) -> Iterator[str]:
    """Start the server, give its address, and stop it.

    ``parallel`` requests are read at once, by ``threads`` (0: as many as there are cores).
    ``weights``: another GGUF file than the embedded model's.
    """
    try:
        import xllamacpp
    except ImportError as error:
        raise UserError(
            "a model in GGUF needs llama.cpp in this process; install it with: "
            "pip install 'grounded-abstain[local]'"
        ) from error
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    parameters: Any = xllamacpp.CommonParams()
    path = weights or embedded.weights()
    parameters.model.path = str(path)
    parameters.n_ctx = TOKENS * parallel
    parameters.n_parallel = parallel
    parameters.cpuparams.n_threads = threads or os.cpu_count() or 1
    parameters.verbosity = -1  # its log is nobody's business here
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = port
    server = xllamacpp.Server(parameters)
    _wait(f"http://127.0.0.1:{port}/health", path)
    yield f"http://127.0.0.1:{port}/v1"
    del server  # its threads end with it


def _wait(address: str, weights: Path) -> None:
    seconds = _SECONDS + weights.stat().st_size / _BYTES_A_SECOND
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):  # noqa: S310 (our own, on loopback)
                return
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > end:
                raise UserError(
                    f"llama.cpp was not ready to serve {weights} in {seconds:.0f} seconds"
                ) from error
            time.sleep(0.1)
