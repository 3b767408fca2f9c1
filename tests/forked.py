"""Commands in processes forked from one that has imported what takes seconds.

Each is a process of its own, with its own streams, environment and exit code: only the imports are
shared, which for a short command are nearly all of its time.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path

IMPORTED = (
    "abstain.ask",
    "abstain.calibrate",
    "abstain.evaluate",
    "curate.pipeline",
    "train.export",
    "train.trainer",
    "transformers.models.llama.modeling_llama",
)
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(list(IMPORTED))


def run(
    command: str, arguments: Sequence[str], environment: Mapping[str, str], given: str, limit: int
) -> subprocess.CompletedProcess[str]:
    """What ``command`` prints and ends with when it reads ``given``.

    Raises `subprocess.TimeoutExpired` after ``limit`` seconds.
    """
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdin", "stdout", "stderr")]
        for stream in streams:
            stream.touch()
        streams[0].write_text(given)
        process = _FORKS.Process(
            target=_main, args=(command, arguments, dict(environment), list(map(str, streams)))
        )
        process.start()
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired([command, *arguments], limit)
        said = [stream.read_text() for stream in streams[1:]]
        return subprocess.CompletedProcess([command, *arguments], process.exitcode, *said)


def _main(
    command: str, arguments: Sequence[str], environment: dict[str, str], streams: Sequence[str]
) -> None:
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [command, *arguments]
    [entry] = entry_points(group="console_scripts", name=command)
    sys.exit(entry.load()())
