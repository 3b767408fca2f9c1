"""`train run` against TRL's `SFTTrainer`: the same model, rows, LoRA and number of examples.

    python -m benchmarks.against_trl [--contexts 24] [--docs docs/against_trl.md]

Twice: on contexts with all their questions, where shared-prefix packing pays, and on as many rows
that have a context each, where it cannot. TRL gets its loss on completions alone (computed in
chunks, its default), bfloat16 where the processor has it, rows of similar length together, and the
fastest of a few batch sizes, tried first. Each side runs in a process of its own, for its peak of
memory; the validation loss of both is computed by the same code. Examples a second are those of the
training loop.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import markdown
from benchmarks.paths import DEMO, ROOT, SQUAD
from curate.console import table
from curate.contract import Contract
from curate.exports import prompt_completion
from curate.files import write_json, write_text
from curate.record import Row, read_table, to_table, write_table
from curate.sources import squad
from train.settings import TrainSettings

ROWS_PER_STEP = 12
BATCHES = (12, 4, 1)  # rows of a TRL batch; several make a step
SETTINGS = TrainSettings(
    epochs=1, head_weight=0, rows_per_step=ROWS_PER_STEP, evaluations=1, checkpoint_every=10_000
)


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


def ours(data: Path, out: Path) -> dict[str, Any]:
    """`train run` on a folder of rows."""
    from train import trainer

    progress = trainer.run(data, out, SETTINGS)
    return {"seconds": progress.seconds, "peak_gib": progress.peak_memory}


def trl(data: Path, out: Path, batch: int, examples: int | None) -> dict[str, Any]:
    """`SFTTrainer` on the same rows; the first ``examples`` of them where that is given."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from abstain.model import load_model
    from train.memory import peak_memory
    from train.precision import has_bfloat16

    rows = read_table(data / "train.parquet")[:examples]
    loaded = load_model(SETTINGS.model)
    config = SFTConfig(
        output_dir=str(out), num_train_epochs=1, learning_rate=SETTINGS.rate,
        per_device_train_batch_size=batch, gradient_accumulation_steps=ROWS_PER_STEP // batch,
        train_sampling_strategy="group_by_length", completion_only_loss=True, max_length=None,
        gradient_checkpointing=False, bf16=has_bfloat16(), use_cpu=True, report_to="none",
        save_strategy="no",
        weight_decay=SETTINGS.weight_decay, max_grad_norm=SETTINGS.clip, seed=SETTINGS.seed,
        warmup_steps=SETTINGS.warmup, logging_steps=10_000, disable_tqdm=False,
    )  # fmt: skip
    lora = LoraConfig(
        r=SETTINGS.rank, lora_alpha=SETTINGS.alpha, lora_dropout=SETTINGS.dropout,
        target_modules="all-linear", task_type="CAUSAL_LM",
    )  # fmt: skip
    trainer = SFTTrainer(
        loaded.model, config, peft_config=lora, processing_class=loaded.tokenizer,
        train_dataset=Dataset.from_list([prompt_completion(row, Contract()) for row in rows]),
    )  # fmt: skip
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    loaded.model.name_or_path = SETTINGS.model
    trainer.model.peft_config["default"].base_model_name_or_path = SETTINGS.model
    trainer.model.save_pretrained(out)
    return {"seconds": seconds, "peak_gib": peak_memory(), "batch": batch}


def loss(data: Path, run: Path) -> float:
    """Validation loss per taught token, by our evaluation."""
    import contextlib

    from abstain.model import load_model
    from train import steps
    from train.collate import pack_examples, tokenise

    loaded = load_model(str(run))
    rows = read_table(data / "validation.parquet")
    examples = tokenise(rows, loaded.tokenizer, Contract(), loaded.end_token_id, "validation")
    packs = pack_examples(examples, SETTINGS.max_rows, SETTINGS.max_tokens)
    return steps.evaluate(loaded.model, None, packs, 0.0, contextlib.nullcontext)["answer"]


def child(*arguments: object) -> dict[str, Any]:
    """One side in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.against_trl", *map(str, arguments)]
    print("$ " + " ".join(command[2:]), flush=True)
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def compare(data: Path, work: Path, rows: int) -> dict[str, Any]:
    """Both sides on one kind of rows."""
    few = min(rows, 2 * ROWS_PER_STEP)
    tried = {
        batch: child("--side", "trl", "--data", data, "--run", work / "try", "--batch", batch,
                     "--examples", few)["seconds"]
        for batch in BATCHES
    }  # fmt: skip
    best = min(tried, key=lambda batch: tried[batch])
    found = {
        "TRL": child("--side", "trl", "--data", data, "--run", work / "trl", "--batch", best),
        "train run": child("--side", "ours", "--data", data, "--run", work / "ours"),
    }
    for side, name in (("TRL", "trl"), ("train run", "ours")):
        found[side]["examples_a_second"] = rows / found[side]["seconds"]
        found[side]["validation_loss"] = loss(data, work / name)
    ratio = found["TRL"]["seconds"] / found["train run"]["seconds"]
    return {"rows": rows, "tried": tried, "ratio": ratio, "sides": found}


def lines(found: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row of the table for each side of each kind of rows."""
    return [
        (kind, str(of["rows"]), side, f"{one['examples_a_second']:.2f}", f"{one['peak_gib']:.2f}",
         f"{one['validation_loss']:.3f}", f"{of['ratio']:.1f}×" if side == "train run" else "")
        for kind, of in found.items()
        for side, one in of["sides"].items()
    ]  # fmt: skip


HEADER = ("rows", "n", "trainer", "examples/s", "peak GiB", "validation loss", "faster")
HEADING = """# `train run` against TRL's `SFTTrainer`

Written by `python -m benchmarks.against_trl --docs docs/against_trl.md`: the embedded model, LoRA
on every linear layer, one pass over the same rows, 2 cores. TRL computes its loss on completions
alone, in chunks, sorts rows by length, and has the fastest of three batch sizes; validation loss a
taught token is computed by the same code for both.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=24, help="with several questions")
    parser.add_argument("--out", type=Path, default=ROOT / "out/benchmarks/against_trl.json")
    parser.add_argument("--docs", type=Path, help="write the page of the documentation")
    parser.add_argument("--side", choices=("ours", "trl"), help=argparse.SUPPRESS)
    for name, kind in (("data", Path), ("run", Path), ("batch", int), ("examples", int)):
        parser.add_argument(f"--{name}", type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side == "ours":
        print(json.dumps(ours(given.data, given.run)))
        return
    if given.side == "trl":
        print(json.dumps(trl(given.data, given.run, given.batch, given.examples)))
        return
    found = {}
    for kind, (train, held_out) in drawn(given.contexts).items():
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "data"
            data.mkdir()
            write_table(to_table(train), data / "train.parquet")
            write_table(to_table(held_out), data / "validation.parquet")
            found[kind] = compare(data, Path(folder), len(train))
    write_json(given.out, found)
    print(table(HEADER, lines(found)))
    if given.docs:
        write_text(given.docs, f"{HEADING}\n{markdown.table(HEADER, lines(found))}\n")


if __name__ == "__main__":
    main()
