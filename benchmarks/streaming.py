"""`curate import nq` on files of growing size: does memory stay flat, and how fast is it?

    python -m benchmarks.streaming [--megabytes 100 1000] [--out out/benchmarks/streaming.json]

The lines have the shape of simplified Natural Questions, with pages of seeded words. Each size is
imported by the installed command in a process of its own, and its peak memory is the system's.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from curate.console import table
from curate.files import write_json

BIN = Path(sys.executable).parent
PARAGRAPHS, WORDS = 60, 80  # of a page: about 30 KB, as the median one


def write_lines(path: Path, size: int, seed: int = 1) -> int:
    """Write lines until the file has ``size`` bytes; returns how many."""
    draw = random.Random(seed)
    vocabulary = ["".join(draw.choices("abcdefghiklmnoprstu", k=draw.randint(2, 9)))
                  for _ in range(20_000)]  # fmt: skip
    count = 0
    with path.open("w", encoding="utf-8") as file:
        while file.tell() < size:
            file.write(f"{json.dumps(_line(count, draw, vocabulary))}\n")
            count += 1
    return count


def _line(number: int, draw: random.Random, vocabulary: list[str]) -> dict[str, Any]:
    tokens: list[str] = []
    candidates = []
    for _ in range(PARAGRAPHS):
        start = len(tokens)
        tokens += ["<P>", *draw.choices(vocabulary, k=WORDS), ".", "</P>"]
        candidates.append({"start_token": start, "end_token": len(tokens), "top_level": True})
    chosen = draw.choice(candidates)
    first = draw.randrange(chosen["start_token"] + 1, chosen["end_token"] - 4)
    found = draw.random() < 0.5  # half of the questions have an answer, as in the real set
    long = chosen if found else {"start_token": -1, "end_token": -1}
    short = [{"start_token": first, "end_token": first + 2}] if found else []
    return {
        "example_id": number,
        "question_text": " ".join(["who", *draw.choices(tokens, k=7)]),
        "document_text": " ".join(tokens),
        "document_url": f"https://example.org/{number}",
        "long_answer_candidates": candidates,
        "annotations": [
            {
                "annotation_id": number,
                "yes_no_answer": "NONE",
                "long_answer": {**long, "candidate_index": 0},
                "short_answers": short,
            }
        ],
    }


def measured(source: Path, out: Path) -> tuple[float, float]:
    """Import in a process of its own; seconds and peak memory in MiB."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [BIN / "curate", "import", "nq", source, "--out", out], stdout=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit("the import failed")
    return time.perf_counter() - started, usage.ru_maxrss / 1024


def main() -> None:
    """Print a line a size, and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[100, 1000])
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/streaming.json"))
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory() as name:
        for size in arguments.megabytes:
            source = Path(name) / "nq.jsonl"
            rows = write_lines(source, size * 10**6)
            seconds, peak = measured(source, Path(name) / "nq.parquet")
            lines.append((size, rows, round(seconds, 1), round(rows / seconds), round(peak)))
    header = ("megabytes", "rows", "seconds", "rows a second", "peak MiB")
    print(table(header, lines))
    print(
        f"peak memory of the largest over that of the smallest: {lines[-1][-1] / lines[0][-1]:.2f}"
    )
    write_json(arguments.out, [dict(zip(header, line, strict=True)) for line in lines])


if __name__ == "__main__":
    main()
