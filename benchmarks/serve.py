"""`abstain serve` under load, against `transformers serve` with the same weights and no abstention.

    python -m benchmarks.serve RUN --data DIR [--seconds 15] [--out out/benchmarks/serve.json]

Both are asked the same questions with the same prompt, over loopback, by 1, 8, 32 and 128 clients
that ask one question after the other; a number of clients with one server is a window of so many
seconds, the servers in turns, after each context was asked about once: as in service, where
documents come back. (Ours has computed them then; `--cold` measures without that.) The adapter is
merged into the weights that `transformers serve` loads, which is then asked for an answer and
nothing else; ours gathers MC dropout (20 masks over the highest four blocks) with every answer,
calibrates, decides and logs. An error, and an answer later than the deadline, is counted.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from abstain.evidence import DropoutSettings, Evidence
from abstain.model import load_model
from abstain.run import read_run_file
from benchmarks.paths import ROOT
from curate.console import table
from curate.files import write_json
from curate.record import Row, read_fold

BIN = Path(sys.executable).parent
CLIENTS = (1, 8, 32, 128)
DEADLINE = 30.0  # seconds, of every request
PORTS = {"abstain": 8131, "transformers": 8132, "transformers, batching": 8133}
MAX_TOKENS = 64


@dataclass
class Window:
    """What came of one window."""

    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)  # of the answered

    def to_json(self) -> dict[str, Any]:
        answered = self.statuses["200"]
        at = np.percentile(self.latencies, [50, 95, 99]).tolist() if self.latencies else [None] * 3
        return {
            "answers_a_second": answered / self.seconds,
            **dict(zip(("p50", "p95", "p99"), at, strict=True)),
            "statuses": dict(self.statuses),
        }


def merged(run: Path, folder: Path) -> None:
    """The run as a plain model."""
    loaded = load_model(str(run))
    model = loaded.model.merge_and_unload()
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)


def with_dropout(run: Path, copy: Path) -> None:
    """The run as it is, but that it gathers MC dropout with every answer."""
    shutil.copytree(run, copy)
    stored = json.loads((copy / "abstain.json").read_text())
    evidence = Evidence.from_json(stored["calibration"]["evidence"])
    more = evidence.joined(Evidence(dropout=DropoutSettings()))
    stored["calibration"]["evidence"] = more.to_json()
    stored["calibration"]["decline_below"] = None  # nor is any question spared its answer
    write_json(copy / "abstain.json", stored)


@contextlib.contextmanager
def running(name: str, model: Path, state: Path) -> Iterator[str]:
    """One of the servers, once it answers."""
    port = PORTS[name]
    if name == "abstain":
        (state / "policy.yaml").write_text(
            f"rules: [{{action: answer}}]\nbudget: {{seconds: {DEADLINE - 1}}}\n"
        )
        command = ["abstain", "serve", model, "--port", port, "--state", state]
        command += ["--policy", state / "policy.yaml", "--most-waiting", 256]
    else:
        command = ["transformers", "serve", model, "--port", port, "--device", "cpu"]
        command += ["--host", "127.0.0.1", "--log-level", "error"]
        command += ["--continuous-batching"] if "batching" in name else []
    with (state / f"{name}.log").open("wb") as log:
        server = subprocess.Popen(
            [str(BIN / str(command[0])), *map(str, command[1:])], stdout=log, stderr=log
        )
    address = f"http://127.0.0.1:{port}"
    health = "/readyz" if name == "abstain" else "/health"
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise SystemExit(f"{name}: {(state / f'{name}.log').read_text()[-2000:]}")
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(address + health).status_code == 200:
                    break
            time.sleep(0.5)
        yield address
    finally:
        os.kill(server.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(40)
        server.kill()


def bodies(name: str, model: Path, rows: Sequence[Row], contract: Any) -> list[dict[str, Any]]:
    """The requests: a question and its context, or the prompt that this amounts to."""
    if name == "abstain":
        return [
            {
                "model": "run",
                "context": row.context,
                "messages": [{"role": "user", "content": row.question}],
            }
            for row in rows
        ]
    return [
        {
            "model": str(model),
            "messages": contract.messages(row.context, row.question),
            "max_tokens": MAX_TOKENS,
            "temperature": 0,
        }
        for row in rows
    ]


async def load(address: str, asked: list[dict[str, Any]], clients: int, seconds: float) -> Window:
    """So many clients, one question after the other each, for so long."""
    window, turns = Window(), itertools.cycle(asked)
    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=DEADLINE + 5, limits=limits) as client:
        started = time.perf_counter()

        async def one() -> None:
            while time.perf_counter() - started < seconds:
                begun = time.perf_counter()
                try:
                    answer = await client.post(f"{address}/v1/chat/completions", json=next(turns))
                    status = str(answer.status_code)
                    retry = float(answer.headers.get("retry-after", 0))
                except httpx.HTTPError as error:
                    status, retry = type(error).__name__, 0.0
                spent = time.perf_counter() - begun
                late = status == "200" and spent > DEADLINE
                window.statuses["late" if late else status] += 1
                if status == "200":
                    window.latencies.append(spent)
                elif retry:
                    await asyncio.sleep(retry)

        await asyncio.gather(*(one() for _ in range(clients)))
        window.seconds = time.perf_counter() - started
    return window


def asked_once(rows: Sequence[Row], asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One request on each context."""
    return list({row.context: body for row, body in zip(rows, asked, strict=True)}.values())


async def warm_up(address: str, asked: list[dict[str, Any]]) -> None:
    """Some requests, one after the other."""
    async with httpx.AsyncClient(timeout=DEADLINE + 5) as client:
        for body in asked:
            (await client.post(f"{address}/v1/chat/completions", json=body)).raise_for_status()


def drawn(data: Path, contexts: int) -> list[Row]:
    """Questions on some contexts of the test split, in random order."""
    rows = [row for row in read_fold(data, "test") if row.context.strip()]
    draw = random.Random(5)
    names = draw.sample(sorted({row.context for row in rows}), contexts)
    chosen = [row for row in rows if row.context in names]
    draw.shuffle(chosen)
    return chosen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--contexts", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--cold", action="store_true", help="no context has been asked about")
    parser.add_argument("--servers", nargs="*", default=list(PORTS), choices=list(PORTS))
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/serve.json")
    arguments = parser.parse_args()
    contract = read_run_file(arguments.run).contract
    rows = drawn(arguments.data, arguments.contexts)
    print(f"{len(rows)} questions on {arguments.contexts} contexts")
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        merged(arguments.run, work / "merged")
        with_dropout(arguments.run, work / "run")
        for clients in CLIENTS:
            for name in arguments.servers:
                model = work / ("run" if name == "abstain" else "merged")
                state = work / f"state-{name}-{clients}"
                state.mkdir()
                asked = bodies(name, model, rows, contract)
                with running(name, model, state) as address:
                    first = asked[:1] if arguments.cold else asked_once(rows, asked)
                    asyncio.run(warm_up(address, first))
                    window = asyncio.run(load(address, asked, clients, arguments.seconds))
                found.setdefault(str(clients), {})[name] = window.to_json()
                print(clients, name, json.dumps(window.to_json()), flush=True)
    lines = []
    for clients_, servers in found.items():
        base = max(
            (one["answers_a_second"] for name, one in servers.items() if name != "abstain"),
            default=0.0,
        )
        for name, one in servers.items():
            ratio = one["answers_a_second"] / base if base else float("nan")
            times = [f"{one[p]:.2f}" if one[p] is not None else "–" for p in ("p50", "p95", "p99")]
            answers = f"{one['answers_a_second']:.2f}"
            others = {k: v for k, v in one["statuses"].items() if k != "200"}
            lines.append((clients_, name, answers, f"{ratio:.2f}", *times, str(others or "")))
    header = ("clients", "server", "answers/s", "of best other", "p50 s", "p95 s", "p99 s", "else")
    print(table(header, lines))
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
