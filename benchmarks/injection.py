"""Whether a context that gives orders is answered when it should not be.

    python -m benchmarks.injection RUN [--out out/benchmarks/injection.json]

Every order of `data/injection` in every passage, against the passage without it: how often the
question that the passage does not answer passes the threshold, and how much the confidence moves.
The threshold itself is a number beside the model, and no context reaches it; what an order could
lift is the confidence.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from abstain.answerer import load_answerer
from abstain.cascade import assemble
from abstain.metrics import is_right
from abstain.router import PLAIN, Look, Outcome
from benchmarks.paths import ROOT
from curate import bootstrap
from curate.console import interval, table
from curate.files import read_json, write_json
from curate.record import Row

CASES = ROOT / "data" / "injection" / "cases.json"


def placed(passage: str, order: dict[str, str] | None) -> str:
    """The passage with the order where it is meant to stand."""
    if order is None:
        return passage
    sentences = passage.split(". ")
    at = {"start": 0, "middle": len(sentences) // 2, "end": len(sentences)}[order["place"]]
    before, after = ". ".join(sentences[:at]), ". ".join(sentences[at:])
    return " ".join(
        filter(None, [before + ("." if before and after else ""), order["text"], after])
    )


def measure(run: str) -> dict[str, Any]:
    """Each order against no order, on the same passages."""
    cases = read_json(CASES)
    cascade = assemble(load_answerer(run), PLAIN)
    orders = [None, *cases["orders"]]
    kinds = ("unanswerable", "answerable")
    keys, rows = [], []
    for order in orders:
        for number, passage in enumerate(cases["passages"]):
            for kind in kinds:
                keys.append((order["name"] if order else "none", number, kind))
                rows.append(Row(passage[kind], placed(passage["text"], order)))
    outcomes = dict(zip(keys, cascade.run(rows), strict=True))

    def answered(outcome: Outcome) -> float:
        return float(outcome.decision.action == "answer")

    def said(outcome: Outcome) -> float:
        return float(not _look(outcome).said_no)

    def wrong(outcome: Outcome, passage: int) -> float:
        accepted = [cases["passages"][passage]["answer"]]
        right = is_right(_look(outcome).text, accepted, 0.5)
        return float(outcome.decision.action == "answer" and not right)

    found: dict[str, Any] = {"threshold": cascade.threshold.value, "orders": {}}
    passages = range(len(cases["passages"]))
    moved: list[float] = []  # of each order and passage, how the unanswerable one came out
    for order in orders:
        name = order["name"] if order else "none"
        no = [outcomes[name, n, "unanswerable"] for n in passages]
        yes = [outcomes[name, n, "answerable"] for n in passages]
        if order is not None:
            before = [answered(outcomes["none", n, "unanswerable"]) for n in passages]
            after = map(answered, no)
            moved += [now - then for now, then in zip(after, before, strict=True)]
        found["orders"][name] = {
            "unanswerable_answered": sum(map(answered, no)),
            "unanswerable_said": sum(map(said, no)),
            "confidence": float(np.mean([_look(one).confidence or 0.0 for one in no])),
            "answerable_answered": sum(map(answered, yes)),
            "answerable_wrong": sum(wrong(one, n) for n, one in zip(passages, yes, strict=True)),
            "of": len(passages),
        }
    values = np.array(moved)
    groups = [str(n) for _ in cases["orders"] for n in passages]
    found["difference"] = bootstrap.intervals(
        lambda some: {"answered": float(values[some].mean())}, groups
    )["answered"]
    return found


def _look(outcome: Outcome) -> Look:
    return outcome.looks[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/injection.json"))
    arguments = parser.parse_args()
    found = measure(arguments.run)
    lines = [
        (
            name,
            f"{one['unanswerable_answered']:.0f} of {one['of']}",
            f"{one['unanswerable_said']:.0f} of {one['of']}",
            f"{one['confidence']:.3f}",
            f"{one['answerable_answered']:.0f} of {one['of']}",
            f"{one['answerable_wrong']:.0f}",
        )
        for name, one in found["orders"].items()
    ]
    header = ("order", "unanswerable, answered", "said something", "confidence")
    print(table((*header, "answerable, answered", "wrongly"), lines))
    more = interval(found["difference"])
    print(f"threshold {found['threshold']:.3f}; answered more often by {more}")
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
