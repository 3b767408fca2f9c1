"""What tests share: the installed commands, and a small file of questions."""

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import forked

_COLOURS = ("red", "blue", "green", "white", "black", "amber", "violet", "silver")
_PLACES = ("Arden", "Bexley", "Corby", "Dunmore", "Elsworth", "Fenwick", "Garth", "Helmsley")


BIN = Path(sys.executable).parent
_SECONDS = 600
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def run_command(
    command: str, *arguments: object, prefix: Sequence[str] = (), **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run an installed console command as a user would: ``run_command("curate", "build", …)``.

    In a new process that has imported nothing only where ``prefix`` or options ask for one.
    """
    if not prefix and options.keys() <= {"env", "input"}:
        environment, given = options.get("env", ENVIRONMENT), options.get("input", "")
        return forked.run(command, [*map(str, arguments)], environment, given, _SECONDS)
    return subprocess.run(
        [*prefix, str(BIN / command), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
        **{"env": ENVIRONMENT, **options},
    )


def small_squad(documents: int = 12, paragraphs: int = 4, seed: int = 3) -> dict[str, Any]:
    """A SQuAD 2.0 file about towns and their gates, half of its questions unanswerable."""
    draw = random.Random(seed)
    articles = []
    for d in range(documents):
        entries = []
        for p in range(paragraphs):
            place, other = draw.sample(_PLACES, 2)
            colour, year = draw.choice(_COLOURS), draw.randrange(1100, 1900)
            context = (
                f"The gate of {place} number {d}-{p} is painted {colour}. It was built in {year} "
                f"by the masons of {other}. A market is held beside it every week."
            )
            asked = [
                (f"What colour is the gate of {place}?", colour),
                (f"When was the gate of {place} built?", str(year)),
                (f"Who painted the gate of {place}?", None),
                (f"What colour is the gate of {other}?", None),
            ]
            entries.append(
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"{d}-{p}-{i}",
                            "question": question,
                            "is_impossible": answer is None,
                            "answers": []
                            if answer is None
                            else [{"text": answer, "answer_start": context.index(answer)}],
                        }
                        for i, (question, answer) in enumerate(asked)
                    ],
                }
            )
        articles.append({"title": f"Town {d}", "paragraphs": entries})
    return {"version": "v2.0", "data": articles}
