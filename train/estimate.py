"""What a training run will need, found without loading any weights."""

import contextlib
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.pytorch_utils import Conv1D

from abstain import quantised
from abstain.head import SufficiencyHead
from abstain.model import EMBEDDED, device, embedded_folder, model_config, random_model
from train import optimizers, precision, steps
from train.collate import Example, Pack, make_pack
from train.memory import LEAN_FROM
from train.meter import Meter, without_contents
from train.methods import wrap
from train.settings import TrainSettings

GIB = 2**30
# Resident with all that `train run` imports, after a step of a model of a few thousand parameters:
# measured on Linux with the CPU wheel of torch 2.13.
FRAMEWORK = round(0.45 * GIB)
FLOAT = 4
# What glibc's heap holds beside what is alive: this share of what a forward pass makes on the way
# that the backward pass will go. What is kept lies between what is freed, and a tensor, being
# aligned, seldom fits where one like it has been (glibc bug 30723).
# Fitted, version 2.36, to the first six settings of `benchmarks.estimate`; the others check it.
HEAP = 0.45
HEAP_BLOCK = 32 * 2**20  # bytes; larger ones it gives back, and with --lean smaller ones


@dataclass(frozen=True)
class Memory:
    """Bytes at the moment when a run needs most."""

    framework: int
    weights: int  # of the base, in the precision that it is kept in
    outside: int  # of those, what does not lie in blocks: it can be neither split nor left
    adapter: int  # what is trained, the head with it
    gradients: int
    optimizer: int
    activations: int  # what the backward pass needs of one pack, and what it works with
    logits: int  # of those, the part for the answers' logits
    heap: int  # freed blocks that the C library keeps and finds no use for
    loading: int  # in all, while the base is read and rounded

    @property
    def total(self) -> int:
        """The larger of what training needs and what loading does."""
        state = self.weights + self.adapter + self.gradients + self.optimizer
        return max(self.framework + state + self.activations + self.heap, self.loading)


@dataclass(frozen=True)
class Shape:
    """The largest pack of a run: what bounds its memory."""

    prefix: int = 300  # tokens that its rows share
    rows: int = 12
    question: int = 20  # tokens of each row's own, without the answer
    answer: int = 6  # tokens, the end token among them

    def examples(self) -> list[Example]:
        """The rows of one pack."""
        return [
            Example(
                row_id=str(row),
                context="",
                prompt=(*[0] * self.prefix, *[row + 1] * self.question),
                answer=(0,) * self.answer,
                sufficient=True,
            )
            for row in range(self.rows)
        ]

    def pack(self) -> Pack:
        """A pack of this shape."""
        return make_pack(self.examples(), steps.LENGTH_MULTIPLE)


@dataclass(frozen=True)
class Estimate:
    """What training asks of a machine."""

    parameters: int
    trained: int
    memory: Memory
    blocks: int
    base_on_disk: int
    checkpoint_on_disk: int
    tokens: int  # of the largest pack

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {**asdict(self), "total": self.memory.total}


def estimate(settings: TrainSettings, pack: Pack, again: bool = True) -> Estimate:
    """Memory and storage of training with these settings where ``pack`` is the largest.

    Only the configuration of the model is read. ``again``: a step may read several packs, so that
    the gradients of earlier ones are there while the largest is computed.
    """
    model, head = empty(settings)
    base = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    trained = steps.trained(model, head)
    numbers = sum(p.numel() for p in trained)
    gradients = sum(map(_bytes, trained))
    moments = round(numbers * optimizers.bytes_a_weight(settings))
    as_stored = sum(_bytes(p) for p in model.parameters() if not p.requires_grad)
    with without_contents(model, head):
        autocast = precision.prepare(model, settings.bfloat16)
        held = {id(p): p for p in (*model.parameters(), *model.buffers())}
        weights = sum(_bytes(p) for p in held.values() if not p.requires_grad)
        adapter = sum(map(_bytes, steps.trained(model, head)))
        peak, small = _step(model, head, pack, settings, autocast, again)
        saved, buffer = _quantised(model, settings)
    rounded = autocast is not contextlib.nullcontext
    # What is rounded to few bits is so as it is read.
    loading = as_stored + (weights if rounded else 0)
    if settings.base_bits is not None:
        loading = weights - saved
    return Estimate(
        parameters=base + numbers,
        trained=numbers,
        memory=Memory(
            framework=FRAMEWORK,
            weights=weights - saved,
            outside=weights - _in_blocks(model),
            adapter=adapter,
            gradients=gradients,
            optimizer=moments,
            activations=max(0, peak - weights - adapter - gradients) + buffer,
            logits=3 * FLOAT * len(pack.replies) * model.config.get_text_config().vocab_size,
            heap=round(HEAP * small) if _keeps_blocks() else 0,
            loading=FRAMEWORK + adapter + loading,
        ),
        blocks=len(steps.recomputable(model)),
        base_on_disk=_on_disk(settings.model, base),
        # The last, and its successor while that is written, with what the optimiser keeps; the
        # best; and the run's own.
        checkpoint_on_disk=2 * (gradients + moments) + 2 * gradients,
        tokens=len(pack.tree),
    )


def blocks_keep(settings: TrainSettings, pack: Pack) -> tuple[int, int]:
    """Bytes kept for the backward pass if no block computes twice, and if all blocks do."""
    model, head = empty(settings)
    with without_contents(model, head):
        autocast = precision.prepare(model, settings.bfloat16)
        kept = []
        for keep in (len(pack.tree), 0):
            steps.recompute_activations(model, len(pack.tree), keep)
            meter = Meter(_held(model, head))
            before = meter.now
            with meter, autocast():
                losses = steps.pack_losses(model, head, pack)
            kept.append(meter.now - before)
            del losses  # and with them all that they were computed from
    return kept[0], kept[1]


def _quantised(model: Any, settings: TrainSettings) -> tuple[int, int]:
    """Bytes that fewer bits save of a model's frozen weights, and that using them takes.

    All linear layers but the output are quantised; one at a time is made whole again, forward and
    backward.
    """
    if settings.base_bits is None:
        return 0, 0
    output = model.get_output_embeddings()
    kinds = (torch.nn.Linear, Conv1D)
    layers = [m for m in model.modules() if isinstance(m, kinds) and m is not output]
    weights = [layer.weight for layer in layers if not layer.weight.requires_grad]
    each = quantised.BYTES[settings.base_bits]
    saved = sum(_bytes(weight) - round(weight.numel() * each) for weight in weights)
    return saved, max(map(_bytes, weights), default=0)


def _in_blocks(model: Any) -> int:
    """Bytes of the frozen matrices of all blocks."""
    blocks = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    weights = {p for block in blocks for p in block.parameters()}
    return sum(_bytes(p) for p in weights if not p.requires_grad and p.dim() > 1)


def largest(packs: Sequence[Sequence[Example]]) -> Pack:
    """The pack with the most tokens, laid out."""
    made = [make_pack(pack, steps.LENGTH_MULTIPLE) for pack in packs]
    return max(made, key=lambda pack: len(pack.tree))


def empty(settings: TrainSettings) -> tuple[Any, SufficiencyHead | None]:
    """The model and head that `train run` would train, without contents."""
    with torch.device("meta"):
        model = random_model(model_config(settings.model), settings.model)
        model.tie_weights()
        wrapped = wrap(model, settings, 100).model.train()
        return wrapped, steps.make_head(wrapped, settings.head_weight)


def _step(
    model: Any,
    head: SufficiencyHead | None,
    pack: Pack,
    settings: TrainSettings,
    autocast: Any,
    again: bool,
) -> tuple[int, int]:
    """Bytes alive at most in one step, and of the small blocks that its forward pass makes.

    Small are blocks that a C library may keep when they are freed.
    """
    held = _held(model, head)
    for parameter in steps.trained(model, head):
        parameter.grad = torch.empty_like(parameter) if again else None
        held += [parameter.grad] if parameter.grad is not None else []
    steps.recompute_activations(model, len(pack.tree), settings.keep)
    meter = Meter(held, LEAN_FROM if settings.lean else HEAP_BLOCK)
    with meter:
        with autocast():
            answer, read_out, _ = steps.pack_losses(model, head, pack)
            loss = answer + settings.head_weight * read_out
        small = meter.small
        loss.backward()
    return meter.peak, small


def _held(model: Any, head: SufficiencyHead | None) -> list[torch.Tensor]:
    """What is there before a step."""
    return [*model.parameters(), *model.buffers(), *(head.parameters() if head else ())]


def _keeps_blocks() -> bool:
    """Whether tensors lie in a heap of glibc."""
    return device().type == "cpu" and "glibc" in platform.libc_ver()


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _on_disk(model: str, parameters: int) -> int:
    """Of a folder what its weights take; of what is not here yet, two bytes a parameter."""
    folder = embedded_folder() if model == EMBEDDED else Path(model)
    sizes = [path.stat().st_size for path in folder.glob("*.safetensors")]
    return sum(sizes) or parameters * 2
