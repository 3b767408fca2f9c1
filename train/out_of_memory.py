"""What to lower when memory was not enough, with what each change would save."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from abstain.model import device
from curate.errors import UserError
from train.collate import Example, pack_examples
from train.estimate import GIB, Shape, estimate, largest
from train.settings import TrainSettings, changed

# The mildest first: what leaves the model as it is, then its numbers, then how many are trained.
_CHANGES: tuple[dict[str, Any], ...] = (
    {"lean": True},
    {"recompute_above": 0},
    {"max_rows": 4},
    {"max_rows": 1, "recompute_above": 0, "lean": True},
    {"optimizer": "adamw8bit"},
    {"offload": "cpu"},
    {"base_bits": 8},
    {"base_bits": 4, "max_rows": 1, "recompute_above": 0, "lean": True},
    {"method": "lora", "learning_rate": None},
)


@contextlib.contextmanager
def explained(settings: TrainSettings, packs: Sequence[Sequence[Example]]) -> Iterator[None]:
    """Where memory does not suffice for what is done within, a `UserError` says what would do.

    ``packs`` may be filled meanwhile.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_one(error):
            raise
        raise UserError(advice(settings, packs)) from error


def is_one(error: Exception) -> bool:
    """Whether an error says that there was not enough memory, of a GPU or of the machine."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "allocate memory" in text
    )


def advice(settings: TrainSettings, packs: Sequence[Sequence[Example]]) -> str:
    """Settings that would need less, the mildest first, by `train plan`'s estimate.

    Without packs, where the model itself was too large, those of `Shape` stand for them.
    """
    packs = packs or [Shape(rows=settings.max_rows).examples()]
    pack = largest(packs)
    now = _needs(settings, packs)
    examples = [example for pack_ in packs for example in pack_]
    lines = []
    for change in _CHANGES:
        try:
            less = changed(settings, change)
        except UserError:  # does not go with this method
            continue
        needs = _needs(less, pack_examples(examples, less.max_rows, less.max_tokens))
        if needs > 0.95 * now:
            continue
        words = ", ".join(
            f"{name}: {str(of).lower()}" for name, of in change.items() if of is not None
        )
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


def _needs(settings: TrainSettings, packs: Sequence[Sequence[Example]]) -> int:
    """Bytes on the device."""
    memory = estimate(settings, largest(packs)).memory
    away = settings.offload is not None and device().type == "cuda"
    return memory.total - (memory.weights - memory.outside if away else 0)
