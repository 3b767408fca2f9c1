"""Shared-prefix packing against padded batches: examples a second in training, the same rows.

    python -m benchmarks.packing [--contexts 12] [--out out/benchmarks/packing.json]

Both sides run the same forward and backward pass of the real model with LoRA and the head, in
turns over the same chunks of rows, with all that `train run` does to be fast. The padded side is
a strong one: batches of rows of similar length, logits only where a token is taught.
"""

import argparse
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm

from abstain.head import SufficiencyHead, middle_layers
from abstain.model import load_model
from benchmarks.paths import DEMO, ROOT, SQUAD
from curate.console import table
from curate.contract import Contract
from curate.files import write_json
from curate.record import Row
from curate.sources import squad
from train import precision, steps
from train.collate import Example, make_pack, pack_examples, tokenise
from train.memory import limit_kernel_cache
from train.methods import lora
from train.settings import TrainSettings


def read_examples(loaded: Any, contexts: int) -> list[list[Example]]:
    """Examples of some contexts drawn by seed, grouped by context."""
    source = SQUAD if SQUAD.exists() else DEMO
    print(f"rows from {source.name}")
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in squad.read(str(source), source.stem):
        groups[row.context].append(row)
    drawn = random.Random(5).sample(sorted(groups), contexts)
    return [
        tokenise(groups[name], loaded.tokenizer, Contract(), loaded.end_token_id, "rows")
        for name in drawn
    ]


def padded_backward(
    model: Any, head: SufficiencyHead, batch: Sequence[Example], tokens: int, rows: int
) -> None:
    """Forward and backward of one padded batch, losses as in the packed side."""
    longest = max(map(len, batch))
    ids = torch.zeros(len(batch), longest, dtype=torch.long)
    mask = torch.zeros(len(batch), longest, dtype=torch.long)
    for number, example in enumerate(batch):
        whole = torch.tensor([*example.prompt, *example.answer])
        ids[number, : len(whole)] = whole
        mask[number, : len(whole)] = 1
    base = model.get_base_model()
    states = base.model(ids, attention_mask=mask, output_hidden_states=True)
    places = [
        (number, len(example.prompt) - 1 + i)
        for number, example in enumerate(batch)
        for i in range(len(example.answer))
    ]
    which, where = (torch.tensor(column) for column in zip(*places, strict=True))
    logits = base.lm_head(states.last_hidden_state[which, where]).float()
    targets = torch.tensor([token for example in batch for token in example.answer])
    answer = functional.cross_entropy(logits, targets, reduction="sum")
    last = torch.tensor([len(example.prompt) - 1 for example in batch])
    hidden = torch.stack(
        [states.hidden_states[layer][torch.arange(len(batch)), last] for layer in head.layers], 1
    ).float()
    label = torch.tensor([float(example.sufficient) for example in batch])
    read_out = functional.binary_cross_entropy_with_logits(head(hidden), label, reduction="sum")
    (answer / tokens + read_out / rows).backward()


def measure(contexts: int, batch_rows: int) -> dict[str, Any]:
    """Seconds and tokens of both sides, chunk by chunk in turns."""
    limit_kernel_cache()
    loaded = load_model("smollm2-135m")
    groups = read_examples(loaded, contexts)
    torch.manual_seed(0)
    settings = TrainSettings()
    model = lora.wrap(loaded.model, settings).model.train()
    head = SufficiencyHead(middle_layers(30), model.config.hidden_size)
    autocast = precision.prepare(model, settings.bfloat16)
    seconds = {"packed": 0.0, "padded": 0.0}
    tokens = {"packed": 0, "padded": 0}
    rows = 0
    chunks = [groups[i : i + 3] for i in range(0, len(groups), 3)]
    for number, chunk in enumerate(tqdm([chunks[0], *chunks], unit="chunk")):
        examples = [example for group in chunk for example in group]
        packs = pack_examples(examples, settings.max_rows, settings.max_tokens)
        total = sum(len(example.answer) for example in examples)
        by_length = sorted(examples, key=len)
        batches = [by_length[i : i + batch_rows] for i in range(0, len(by_length), batch_rows)]

        started = time.perf_counter()
        steps.backward(model, head, packs, 1.0, autocast, settings.recompute_above)
        packed = time.perf_counter() - started
        model.zero_grad()

        started = time.perf_counter()
        for batch in batches:
            with autocast():
                padded_backward(model, head, batch, total, len(examples))
        padded = time.perf_counter() - started
        model.zero_grad()
        if number == 0:
            continue  # the first chunk warms both up
        seconds["packed"] += packed
        seconds["padded"] += padded
        tokens["packed"] += sum(len(make_pack(pack).tree) for pack in packs)
        tokens["padded"] += sum(max(map(len, batch)) * len(batch) for batch in batches)
        rows += len(examples)
    return {
        "rows": rows,
        "threads": torch.get_num_threads(),
        "padded_batch_rows": batch_rows,
        "seconds": seconds,
        "tokens": tokens,
        "examples_per_second": {side: rows / seconds[side] for side in seconds},
        "speed_ratio": seconds["padded"] / seconds["packed"],
        "token_ratio": tokens["padded"] / tokens["packed"],
    }


def main() -> None:
    """Parse arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contexts", type=int, default=12, help="contexts to measure on")
    parser.add_argument("--batch-rows", type=int, default=8, help="rows of a padded batch")
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "benchmarks" / "packing.json")
    arguments = parser.parse_args()
    found = measure(arguments.contexts, arguments.batch_rows)
    lines = [
        (side, f"{found['examples_per_second'][side]:.2f}", f"{found['tokens'][side]:,}")
        for side in ("packed", "padded")
    ]
    print(table(("", "examples/s", "tokens read"), lines))
    print(
        f"packing trains {found['speed_ratio']:.2f}× as many examples a second, "
        f"on {found['token_ratio']:.2f}× fewer tokens ({found['rows']} rows)"
    )
    write_json(arguments.out, found)


if __name__ == "__main__":
    main()
