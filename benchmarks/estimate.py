"""`train plan` against measurement: memory and seconds of settings that differ in every way.

    python -m benchmarks.estimate [--docs docs/estimate.md] [--out out/benchmarks/estimate.json]

Each setting is predicted from the model's configuration alone, then trained for a few steps by the
loop of `train run`, validation and checkpoint with it, in a process of its own whose peak of
resident memory is read; what has been measured before is not measured again. Nothing in the
prediction was fitted to these measurements, but for the one number of what glibc's heap keeps: to
the first six.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from abstain.model import EMBEDDED
from benchmarks import markdown
from benchmarks.paths import ROOT
from curate.console import table
from curate.files import read_json, write_json, write_text
from train.estimate import GIB, Shape, estimate
from train.memory import LEAN_FROM
from train.methods import Name
from train.settings import TrainSettings

STEPS = 3
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

    def settings(self, model: str) -> TrainSettings:
        return TrainSettings(
            model=model,
            method=self.method,
            recompute_above=self.recompute_above,
            lean=self.lean,
            evaluations=STEPS,
            patience=STEPS,
            checkpoint_every=STEPS,
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
    Case("diffpruning", 100, 4, 512),
    Case("sparse", 300, 12, 512),
    Case("selective", 300, 12, ALL),
    Case("full", 300, 12, 512),
    Case("full", 300, 12, 512, lean=True),
    Case("full", 100, 4, ALL, packs=1),
]


def measured(case: Case, name: str) -> dict[str, float]:
    """Three steps of the real loop, each validated, the last kept on disk: peak, and seconds."""
    import torch

    from abstain.model import load_model
    from train import steps, trainer
    from train.material import Material
    from train.memory import free_at_once, limit_kernel_cache, peak_memory
    from train.methods import wrap

    limit_kernel_cache()
    settings = case.settings(name)
    if settings.lean:
        free_at_once()
    torch.manual_seed(0)
    wrapped = wrap(load_model(settings.model).model, settings, STEPS)
    wrapped.model.train()
    head = steps.make_head(wrapped.model, settings.head_weight)
    pack = case.shape().examples()
    material = Material([pack], [pack], rows=len(pack), fingerprint="")
    seconds = [0.0]
    with tempfile.TemporaryDirectory() as out:
        trainer.loop(
            wrapped, head, [[pack] * case.packs] * STEPS, material, settings, Path(out),
            watch=lambda progress: seconds.append(progress.seconds),
        )  # fmt: skip
    each = [after - before for before, after in itertools.pairwise(seconds)]
    return {"gib": peak_memory(), "seconds": min(each[1:]) / case.packs}


def timed(case: Case, name: str) -> dict[str, float]:
    """The seconds that `train plan` says."""
    from train.timing import timing

    return {"seconds": timing(case.settings(name), case.shape().pack()).train}


def machine() -> dict[str, Any]:
    """What else decides memory and time."""
    import torch

    return {"threads": torch.get_num_threads(), "torch": torch.__version__}


def child(kind: str, number: int, model: str) -> dict[str, float]:
    """One setting in a process of its own."""
    command = [
        sys.executable, "-m", "benchmarks.estimate",
        "--case", str(number), "--kind", kind, "--model", model,
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--docs", type=Path, help="write the page of the documentation")
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/estimate.json")
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--first", type=int, default=len(CASES), help="so many settings only")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured")
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kind", choices=("measured", "timed"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case is not None:
        find = measured if given.kind == "measured" else timed
        print(json.dumps(find(CASES[given.case], given.model)))
        return
    before: dict[str, dict[str, dict[str, float]]] = {}
    if given.out.exists() and not given.fresh:
        before = read_json(given.out)["measured"]
    lines: list[tuple[str, ...]] = []
    found: list[dict[str, Any]] = []
    for number, case in enumerate(CASES[: given.first]):
        what = {
            "model": given.model,
            **asdict(case),
            "lean_from": LEAN_FROM if case.lean else None,
            **machine(),
        }
        key = json.dumps(what)
        if key not in before:  # both in one turn: what else the machine does slows both
            before[key] = {kind: child(kind, number, given.model) for kind in ("timed", "measured")}
        was = before[key]["measured"]
        needs = estimate(case.settings(given.model), case.shape().pack(), again=case.packs > 1)
        said = {"gib": needs.memory.total / GIB, **before[key]["timed"]}
        errors = {name: said[name] / was[name] - 1 for name in ("gib", "seconds")}
        found.append({"case": what, "predicted": said, "measured": was, "errors": errors})
        twice = {ALL: "no", 0: "all"}.get(case.recompute_above, f"above {case.recompute_above}")
        lines.append(
            (
                case.method, str(needs.tokens), str(case.packs), twice,
                "yes" if case.lean else "",
                f"{said['gib']:.2f}", f"{was['gib']:.2f}", f"{errors['gib']:+.0%}",
                f"{said['seconds']:.2f}", f"{was['seconds']:.2f}", f"{errors['seconds']:+.0%}",
            )
        )  # fmt: skip
        print(*lines[-1], flush=True)
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
