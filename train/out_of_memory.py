"""What to lower when memory was not enough, with what each change would save."""

from collections.abc import Sequence

import torch

from train.collate import Example, pack_examples
from train.estimate import GIB, estimate, largest
from train.settings import TrainSettings


def is_one(error: RuntimeError) -> bool:
    """Whether an error says that there was not enough memory, of a GPU or of the machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "allocate memory" in text
    )


def advice(settings: TrainSettings, packs: Sequence[Sequence[Example]]) -> str:
    """Settings that would need less, the mildest first, by `train plan`'s estimate."""
    pack = largest(packs)
    now = estimate(settings, pack).memory.total
    examples = [example for pack_ in packs for example in pack_]
    lines = []
    for change in (
        {"lean": True},
        {"recompute_above": 0},
        {"max_rows": 4},
        {"max_rows": 1, "recompute_above": 0, "lean": True},
    ):
        less = settings.model_copy(update=change)
        smaller = largest(pack_examples(examples, less.max_rows, less.max_tokens))
        needs = estimate(less, smaller).memory.total
        if needs > 0.95 * now:
            continue
        words = ", ".join(f"{name}: {str(value).lower()}" for name, value in change.items())
        lines.append(f"  with `{words}` in --config about {needs / GIB:.2f} GiB")
    if not lines:
        lines = [
            "  no setting of ours needs much less: lower --max-tokens, or take a smaller model"
        ]
    return (
        f"out of memory: a run with these settings needs about {now / GIB:.2f} GiB (its largest "
        f"pack has {len(pack.tree)} tokens)\n" + "\n".join(lines) + "\n"
        "  with lean alone the same run goes on; other settings need another --out, or --fresh; "
        "`train plan` shows what takes the memory"
    )
