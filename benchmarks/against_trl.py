"""`train run` against TRL's `SFTTrainer`: the same model, rows, LoRA and number of examples.

    python -m benchmarks.against_trl [--contexts 24] [--docs docs/against_trl.md]

Twice: on contexts with all their questions, where shared-prefix packing pays, and on as many rows
that have a context each, where it cannot. TRL gets its loss on completions alone (computed in
chunks, its default), bfloat16 where the processor has it, rows of similar length together, and the
fastest of a few batch sizes, tried first. Each side runs in a process of its own, for its peak of
memory; the validation loss of both is computed by the same code. Examples a second are those of the
training loop. Stopped and started again, it goes on after the last side that was done.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abstain.model import EMBEDDED
from benchmarks import markdown
from benchmarks.paths import DEMO, ROOT, SQUAD
from curate.bootstrap import Interval, intervals
from curate.console import interval, table
from curate.contract import Contract
from curate.exports import prompt_completion
from curate.files import write_json, write_text
from curate.record import Row, digest, read_rows, rows_digest, to_table, write_table
from curate.sources import squad
from train.kept import kept
from train.settings import TrainSettings

ROWS_PER_STEP = 12
BATCHES = (12, 4, 1)  # rows of a TRL batch; several make a step


def settings_of(model: str) -> TrainSettings:
    """One pass by LoRA, validated and kept once, at its end."""
    return TrainSettings(
        model=model, epochs=1, head_weight=0, rows_per_step=ROWS_PER_STEP, evaluations=1,
        checkpoint_every=10_000,
    )  # fmt: skip


def drawn(contexts: int) -> dict[str, tuple[list[Row], list[Row]]]:
    """Train and validation rows of both kinds, from different contexts."""
    source = SQUAD if SQUAD.exists() else DEMO
    print(f"rows from {source.name}")
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in squad.read(str(source), source.stem):
        groups[row.context].append(row)
    names = random.Random(7).sample(sorted(groups), len(groups))
    several = [groups[name] for name in names if len(groups[name]) > 2]
    train = [row for group in several[:contexts] for row in group]
    held_out = [row for group in several[contexts : contexts + 8] for row in group]
    alone = [groups[name][0] for name in names[contexts + 8 :]][: len(train)]
    return {"several questions a context": (train, held_out), "one question": (alone, held_out)}


def ours(settings: TrainSettings, data: Path, out: Path) -> dict[str, Any]:
    """`train run` on a folder of rows."""
    from train import trainer

    progress = trainer.run(data, out, settings, fresh=True)  # what was cut off, or is of other rows
    return {
        "seconds": progress.seconds, "peak_gib": progress.peak_memory, "steps": progress.step
    }  # fmt: skip


def trl(
    settings: TrainSettings, data: Path, out: Path, batch: int, examples: int | None
) -> dict[str, Any]:
    """`SFTTrainer` on the same rows; the first ``examples`` of them where that is given."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from abstain.model import load_model
    from train.memory import peak_memory
    from train.precision import has_bfloat16

    rows = read_rows(data / "train.parquet")[:examples]
    loaded = load_model(settings.model)
    steps = math.ceil(len(rows) / ROWS_PER_STEP)
    rising = max(1, round(steps * settings.warmup))
    config = SFTConfig(
        output_dir=str(out), num_train_epochs=1, learning_rate=settings.rate,
        per_device_train_batch_size=batch, gradient_accumulation_steps=ROWS_PER_STEP // batch,
        train_sampling_strategy="group_by_length", completion_only_loss=True, max_length=None,
        gradient_checkpointing=False, bf16=has_bfloat16(), use_cpu=True, report_to="none",
        save_strategy="no",
        weight_decay=settings.weight_decay, max_grad_norm=settings.clip, seed=settings.seed,
        logging_steps=10_000, disable_tqdm=False,
        # As ours: up, and straight down to a tenth.
        lr_scheduler_type="warmup_stable_decay", warmup_steps=rising,
        lr_scheduler_kwargs={
            "num_decay_steps": steps - rising, "decay_type": "linear", "min_lr_ratio": 0.1,
        },
    )  # fmt: skip
    lora = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout,
        target_modules="all-linear", task_type="CAUSAL_LM",
    )  # fmt: skip
    trainer = SFTTrainer(
        loaded.model, config, peft_config=lora, processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_list([prompt_completion(row, Contract()) for row in rows]),
    )  # fmt: skip
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    loaded.model.name_or_path = settings.model
    trainer.model.peft_config["default"].base_model_name_or_path = settings.model
    trainer.model.save_pretrained(out)
    done = trainer.state.global_step
    return {"seconds": seconds, "peak_gib": peak_memory(), "batch": batch, "steps": done}


def nats(data: Path, run: Path) -> NDArray[np.float64]:
    """Of each validation row, the summed loss of its answer and its tokens: [rows, 2]."""
    import torch

    from abstain.model import load_model
    from train import steps
    from train.collate import make_pack, tokenise

    loaded = load_model(str(run))
    rows = read_rows(data / "validation.parquet")
    examples = tokenise(rows, loaded.tokenizer, Contract(), loaded.end_token_id, "validation")
    with torch.no_grad():
        scored = [
            steps.score_pack(loaded.model, None, make_pack([example], steps.LENGTH_MULTIPLE))
            for example in examples
        ]
    return np.array([(one.losses().answer, one.losses().tokens) for one in scored])


def losses(data: Path, work: Path) -> dict[str, Interval]:
    """Both sides' validation loss a token, and ours less TRL's on the same rows, by context."""
    both = [nats(data, work / name) for name in ("trl", "ours")]

    def measure(rows: NDArray[np.int64]) -> dict[str, float]:
        trl, ours = (side[rows, 0].sum() / side[rows, 1].sum() for side in both)
        return {"TRL": trl, "train run": ours, "difference": ours - trl}

    contexts = [row.context for row in read_rows(data / "validation.parquet")]
    return intervals(measure, contexts)


def child(*arguments: object) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.against_trl", *map(str, arguments)]
    print("$ " + " ".join(command[2:]), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(model: str, train: list[Row], held_out: list[Row], work: Path) -> dict[str, Any]:
    """Both sides on one kind of rows, each done once."""
    data, rows = work / "data", len(train)
    data.mkdir(parents=True, exist_ok=True)
    write_table(to_table(train), data / "train.parquet")
    write_table(to_table(held_out), data / "validation.parquet")
    of = digest(repr(settings_of(model)), rows_digest(train), rows_digest(held_out))

    def side(name: str, *arguments: object) -> dict[str, Any]:
        fixed = ("--model", model, "--data", data, "--run", work / name)
        found: dict[str, Any] = kept(work / f"{name}.json", of, lambda: child(*fixed, *arguments))
        return found

    few = min(rows, 2 * ROWS_PER_STEP)
    tried = {
        batch: side(f"try-{batch}", "--side", "trl", "--batch", batch, "--examples", few)["seconds"]
        for batch in BATCHES
    }
    best = min(tried, key=lambda batch: tried[batch])
    found = {
        "TRL": side("trl", "--side", "trl", "--batch", best),
        "train run": side("ours", "--side", "ours"),
    }
    for one in found.values():
        one["examples_a_second"] = rows / one["seconds"]
    ratio = found["TRL"]["seconds"] / found["train run"]["seconds"]
    lost = kept(work / "losses.json", of, lambda: losses(data, work))
    return {"rows": rows, "tried": tried, "ratio": ratio, "sides": found, "losses": lost}


def lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row of the table for each side of each kind of rows."""
    return [
        (kind, str(of["rows"]), side, str(one["steps"]), f"{one['examples_a_second']:.2f}",
         f"{one['peak_gib']:.2f}", f"{of['losses'][side]['value']:.3f}",
         *((f"{of['ratio']:.1f}×", interval(of["losses"]["difference"]))
           if side == "train run" else ("", "")))
        for kind, of in found.items()
        for side, one in of["sides"].items()
    ]  # fmt: skip


HEADER = ("rows", "n", "trainer", "steps", "examples/s", "peak GiB", "validation loss", "faster",
          "loss, difference")  # fmt: skip
HEADING = """# `train run` against TRL's `SFTTrainer`

Written by `python -m benchmarks.against_trl --docs docs/against_trl.md`: the embedded model, LoRA
on every linear layer, one pass over the same rows, 2 cores. TRL computes its loss on completions
alone, in chunks, sorts rows by length, and has the fastest of three batch sizes. A step reads 12
rows, ours as many whole packs as hold no more. Validation loss is that of a taught token, computed
by the same code for both; its difference has a 95 % interval over contexts.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=EMBEDDED)
    parser.add_argument("--contexts", type=int, default=24, help="with several questions")
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/against_trl.json")
    parser.add_argument("--docs", type=Path, help="write the page of the documentation")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    for name, kind in (("data", Path), ("run", Path), ("batch", int), ("examples", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "ours":
        print(json.dumps(ours(settings_of(given.model), given.data, given.run)))
        return
    if given.side == "trl":
        side = trl(settings_of(given.model), given.data, given.run, given.batch, given.examples)
        print(json.dumps(side))
        return
    found = {}
    for kind, (train, held_out) in drawn(given.contexts).items():
        work = given.out.with_suffix("") / kind.replace(" ", "-")
        found[kind] = compare(given.model, train, held_out, work)
    write_json(given.out, found)
    print(table(HEADER, lines(found)))
    if given.docs:
        write_text(given.docs, f"{HEADING}\n{markdown.table(HEADER, lines(found))}\n")


if __name__ == "__main__":
    main()
