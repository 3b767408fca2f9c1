"""`train plan` against measurement: memory and seconds of settings that differ in every way.

    python -m benchmarks.estimate [--docs docs/estimate.md] [--out out/benchmarks/estimate.json]

Each setting is predicted from the model's configuration alone, then trained for a few steps by the
code of `train run`, in a process of its own whose peak of resident memory is read; what has been
measured before is not measured again. Nothing in the prediction was fitted to these measurements,
but for the one number of what glibc's heap keeps: to the first six.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.paths import ROOT
from curate.console import table
from curate.files import read_json, write_json, write_text
from train.estimate import GIB, Shape, estimate
from train.memory import LEAN_FROM
from train.methods import Name
from train.settings import TrainSettings

ALL = 1_000_000  # tokens: nothing computes twice


@dataclass(frozen=True)
class Case:
    """One setting."""

    method: Name
    prefix: int
    rows: int
    recompute_above: int
    packs: int = 2  # a step
    lean: bool = False

    def settings(self) -> TrainSettings:
        return TrainSettings(
            method=self.method, recompute_above=self.recompute_above, lean=self.lean
        )

    def shape(self) -> Shape:
        return Shape(self.prefix, self.rows)


CASES = [
    Case("lora", 100, 4, ALL),
    Case("lora", 300, 12, ALL),
    Case("lora", 300, 12, 512),
    Case("lora", 800, 8, ALL),
    Case("lora", 800, 8, 0),
    Case("lora", 1500, 12, 512),
    Case("lora", 100, 4, ALL, lean=True),
    Case("lora", 300, 12, 512, lean=True),
    Case("lora", 800, 8, ALL, lean=True),
    Case("dora", 300, 12, 512),
    Case("adalora", 300, 12, 512),
    Case("ia3", 300, 12, ALL),
    Case("bitfit", 300, 12, 512),
    Case("layernorm", 800, 8, 512),
    Case("bottleneck", 300, 12, ALL),
    Case("prefix", 300, 12, ALL),
    Case("sparse", 300, 12, 512),
    Case("selective", 300, 12, ALL),
    Case("full", 300, 12, 512),
    Case("full", 300, 12, 512, lean=True),
    Case("full", 100, 4, ALL, packs=1),
]


def measured(case: Case) -> dict[str, float]:
    """Three steps of real training: the process's peak, and seconds a pack without the first."""
    import torch

    from abstain.model import load_model
    from train import precision, steps
    from train.memory import free_at_once, limit_kernel_cache, peak_memory
    from train.methods import wrap

    limit_kernel_cache()
    settings = case.settings()
    if settings.lean:
        free_at_once()
    wrapped = wrap(load_model(settings.model).model, settings, 3)
    model = wrapped.model.train()
    head = steps.make_head(model, settings.head_weight)
    optimizer = torch.optim.AdamW(steps.trained(model, head), lr=settings.rate)
    autocast = precision.prepare(model, settings.bfloat16)
    batch = [case.shape().examples()] * case.packs
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        steps.backward(model, head, batch, 1.0, autocast, settings.recompute_above)
        seconds.append((time.perf_counter() - started) / case.packs)
        optimizer.step()
        optimizer.zero_grad()
    return {"gib": peak_memory(), "seconds": min(seconds[1:])}


def predicted(case: Case) -> dict[str, float]:
    """By `train plan`'s means."""
    from train.timing import timing

    pack = case.shape().pack()
    found = estimate(case.settings(), pack, again=case.packs > 1)
    return {
        "gib": found.memory.total / GIB,
        "seconds": timing(case.settings(), pack).train,
        "tokens": found.tokens,
    }


def child(kind: str, number: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.estimate", "--case", str(number), "--kind", kind]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, help="write the page of the documentation")
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/estimate.json")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=("measured", "predicted"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case is not None:
        find = measured if given.kind == "measured" else predicted
        print(json.dumps(find(CASES[given.case])))
        return
    before: dict[str, dict[str, float]] = {}
    if given.out.exists() and not given.fresh:
        before = read_json(given.out)["measured"]
    lines: list[tuple[str, ...]] = []
    found: list[dict[str, Any]] = []
    for number, case in enumerate(CASES):
        said = child("predicted", number)
        what = {**asdict(case), "lean_from": LEAN_FROM if case.lean else None}
        was = before.get(json.dumps(what)) or child("measured", number)
        errors = {key: said[key] / was[key] - 1 for key in ("gib", "seconds")}
        found.append({"case": what, "predicted": said, "measured": was, "errors": errors})
        twice = {ALL: "no", 0: "all"}.get(case.recompute_above, f"above {case.recompute_above}")
        lines.append(
            (
                case.method, f"{said['tokens']:.0f}", str(case.packs), twice,
                "yes" if case.lean else "",
                f"{said['gib']:.2f}", f"{was['gib']:.2f}", f"{errors['gib']:+.0%}",
                f"{said['seconds']:.2f}", f"{was['seconds']:.2f}", f"{errors['seconds']:+.0%}",
            )
        )  # fmt: skip
        print(*lines[-1], flush=True)
        before[json.dumps(what)] = was
        write_json(given.out, {"measured": before, "found": found})
    header = ("method", "tokens", "packs", "twice", "lean", "GiB said", "GiB was", "error",
              "s a pack said", "s was", "error")  # fmt: skip
    print(table(header, lines))
    worst = max(abs(one["errors"]["gib"]) for one in found)
    middle = sorted(abs(one["errors"]["seconds"]) for one in found)[len(found) // 2]
    summary = (
        f"Memory: worst error {worst:.0%} over {len(found)} settings. "
        f"Seconds: median error {middle:.0%}."
    )
    print(summary)
    if given.docs:
        write_text(given.docs, f"{HEADING}\n{summary}\n\n{markdown.table(header, lines)}\n")


HEADING = """# What `train plan` says, and what then happens

Written by `python -m benchmarks.estimate --docs docs/estimate.md`; the embedded model, 2 cores.
`tokens` are those of the largest pack, `packs` how many a step reads, `twice` which blocks compute
their activations a second time, `lean` whether freed memory is given back at once. What the heap
keeps rests on one number that was fitted to the first six lines; the others check it.
"""


if __name__ == "__main__":
    main()
