"""`curate build` on as many rows as SQuAD 2.0 has: rows a second of each step, and peak memory.

    python -m benchmarks.curate [--rows 32580 130319] [--workers 2] [--out FILE]

The rows are those of a real file copied with seeded edits: in each copy of an article every
seventh word that is no answer's gives way to another, so that no copy is a near-duplicate of
another. All model-free methods are on. Each size is built in a process of its own; a step's cost
is linear where its rows a second stay the same. Then MinHash is held against brute force.
"""

import argparse
import contextlib
import functools
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from tqdm import tqdm

from benchmarks.paths import DEMO, SQUAD
from curate.console import table
from curate.files import read_json, write_json

STEPS = {
    "read": ("curate.pipeline", "read_sources"),
    "clean": ("curate.pipeline", "clean_all"),
    "near-duplicates": ("curate.dedup", "context_clusters"),
    "dedup": ("curate.dedup", "dedup"),
    "folds": ("curate.folds", "assign"),
    "insufficient": ("curate.insufficient.derive", "derive"),
    "contrast": ("curate.insufficient.contrast", "contrast"),
    "split": ("curate.split", "split"),
    "quality": ("curate.quality", "quality"),
    "write, quality included": ("curate.dataset", "publish"),
}
_WORD = re.compile(r"[a-z]{4,}")
EDITED = 7  # one word in so many


def write_copies(source: Path, rows: int, out: Path) -> int:
    """A SQuAD file of at least ``rows`` questions, article by article; returns how many."""
    articles = read_json(source)["data"]
    paragraphs = [p for article in articles for p in article["paragraphs"]]
    vocabulary = sorted({w for p in paragraphs for w in _WORD.findall(p["context"])})
    made: list[dict[str, Any]] = []
    count = copy = 0
    while count < rows:
        for article in articles:
            draw = random.Random(f"{copy}/{article['title']}")
            edited = [_edited(p, draw, vocabulary, copy) for p in article["paragraphs"]]
            made.append({"title": f"{article['title']} {copy}", "paragraphs": edited})
            count += sum(len(p["qas"]) for p in edited)
            if count >= rows:
                break
        copy += 1
    out.write_text(json.dumps({"version": "v2.0", "data": made}), encoding="utf-8")
    return count


def _edited(
    paragraph: dict[str, Any], draw: random.Random, vocabulary: Sequence[str], copy: int
) -> dict[str, Any]:
    """A paragraph with other words here and there, its answers where they were found again."""
    context = paragraph["context"]
    taken = [
        (answer["answer_start"], answer["answer_start"] + len(answer["text"]))
        for question in paragraph["qas"]
        for answer in question["answers"]
    ]
    pieces: list[str] = []
    moves: list[tuple[int, int]] = []  # from here on, so many characters later
    end = shift = 0
    for match in _WORD.finditer(context):
        start, stop = match.span()
        if draw.randrange(EDITED) or any(a < stop and start < b for a, b in taken):
            continue
        word = draw.choice(vocabulary)
        pieces += [context[end:start], word]
        shift += len(word) - (stop - start)
        moves.append((stop, shift))
        end = stop
    pieces.append(context[end:])

    def moved(start: int) -> int:
        return start + next((by for at, by in reversed(moves) if at <= start), 0)

    questions = [
        {
            **question,
            "id": f"{question['id']}-{copy}",
            "answers": [
                {**answer, "answer_start": moved(answer["answer_start"])}
                for answer in question["answers"]
            ],
        }
        for question in paragraph["qas"]
    ]
    return {"context": "".join(pieces), "qas": questions}


def timed_build(recipe: Path, out: Path, workers: int) -> dict[str, Any]:
    """Build once from this process, each step's function timed; seconds, rows and peak memory.

    Memory is that of this process and its workers together, looked at twenty times a second.
    """
    import importlib

    from curate import pipeline

    seconds: Counter[str] = Counter()

    def watch(module: ModuleType, name: str, step: str) -> None:
        function = getattr(module, name)

        @functools.wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                seconds[step] += time.perf_counter() - started

        setattr(module, name, watched)

    for step, (module, name) in STEPS.items():
        watch(importlib.import_module(module), name, step)
    started = time.perf_counter()
    with _memory() as used:
        manifest = pipeline.build(recipe, out, workers)
    whole = time.perf_counter() - started
    rows = sum(sum(counts["label"].values()) for counts in manifest["splits"].values())
    return {
        "rows_in": manifest["steps"][0]["created"],
        "rows_out": rows,
        "seconds": whole,
        "peak_gib": max(used) / 2**30,
        "steps": dict(seconds),
        "books": manifest["steps"],
    }


@contextlib.contextmanager
def _memory() -> Iterator[list[int]]:
    """Bytes in memory of this process and those that it started, again and again."""
    import psutil

    used, done, here = [0], threading.Event(), psutil.Process()

    def look() -> None:
        while not done.wait(0.05):
            total = 0
            for process in (here, *here.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            used.append(total)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield used
    finally:
        done.set()
        thread.join()


def recall(source: Path, texts: int = 1500, seed: int = 1) -> dict[str, Any]:
    """Of the pairs of a Jaccard similarity of 0.8 that brute force finds, how many we find."""
    from curate.near_duplicates import SIMILAR, clusters, jaccard, shingles

    draw = random.Random(seed)
    contexts = [p["context"] for a in read_json(source)["data"] for p in a["paragraphs"]]
    drawn: list[str] = []
    while len(drawn) < texts:
        words = draw.choice(contexts).split()
        for place in draw.sample(range(len(words)), draw.randint(0, len(words) // 8)):
            words[place] = draw.choice(draw.choice(contexts).split())
        drawn.append(" ".join(words))
    sets = [shingles(text) for text in drawn]
    found = clusters(drawn)
    pairs = together = 0
    for i in tqdm(range(texts), desc="brute force", unit="text"):
        for j in range(i):
            if jaccard(sets[i], sets[j]) >= SIMILAR:
                pairs += 1
                together += found[i] == found[j]
    return {"texts": texts, "pairs": pairs, "recall": together / pairs if pairs else None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, nargs="+", default=[32_580, 130_319])
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/curate.json"))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--build", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.build:  # the process of one size
        folder = arguments.build.parent / "set"
        write_json(arguments.out, timed_build(arguments.build, folder, arguments.workers))
        return
    source = SQUAD if SQUAD.exists() else DEMO
    results = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            count = write_copies(source, rows, folder / "copies.json")
            recipe = {"name": "copies", "sources": [{"kind": "squad", "path": "copies.json"}]}
            recipe["insufficient"] = {"share": 0.66}  # the file's own rows are half insufficient
            (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
            print(f"{count:,} rows of {source.name}", file=sys.stderr)
            command = [sys.executable, "-m", "benchmarks.curate", "--workers", arguments.workers]
            command += ["--build", folder / "recipe.yaml", "--out", folder / "result.json"]
            subprocess.run([str(part) for part in command], check=True)
            results.append(read_json(folder / "result.json"))
    found = {"source": source.name, "sizes": results, "near_duplicates": recall(source)}
    write_json(arguments.out, found)
    header = ["step"]
    for each in results:
        header += [f"s at {each['rows_in']:,}", "rows/s"]
    lines: list[list[object]] = []
    for step in [*STEPS, "whole"]:
        line: list[object] = [step]
        for each in results:
            seconds = each["seconds"] if step == "whole" else each["steps"].get(step, 0.0)
            line += [round(seconds, 1), round(each["rows_in"] / max(seconds, 1e-9))]
        lines.append(line)
    print(table(header, lines))
    for each in results:
        print(f"peak memory at {each['rows_in']:,} rows: {each['peak_gib']:.2f} GiB")
    near = found["near_duplicates"]
    print(f"near-duplicates: {near['recall']:.3f} of {near['pairs']} pairs that brute force finds")


if __name__ == "__main__":
    main()
