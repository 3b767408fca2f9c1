"""`train plan`: what a run will need, and how it could be spread over several devices."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from abstain.model import load_tokenizer, model_config
from abstain.prefix import slides
from curate.console import table
from train import precision, steps
from train.collate import Pack, make_pack
from train.estimate import GIB, Estimate, Memory, Shape, blocks_keep, estimate, largest
from train.material import read_material
from train.settings import TrainSettings
from train.timing import Timing, timing

# A GPU process holds this much before any tensor: PyTorch's and the driver's own.
GPU_FRAMEWORK = round(0.6 * GIB)


_REPLY = Shape(prefix=30, rows=1, question=1, answer=40)  # about what rehearsal reads


@dataclass(frozen=True)
class Work:
    """How much there is to do."""

    packs: int
    replies: int  # rehearsed ones, each a short pack
    validation_packs: int
    steps: int
    evaluations: int
    mean_tokens: float  # a pack


@dataclass(frozen=True)
class Strategy:
    """One way to use so many devices."""

    name: str
    device_memory: int  # bytes, of each device
    host_memory: int
    network: int  # bytes that each device sends a step
    fits: bool | None  # None: nobody said how large the devices are


@dataclass(frozen=True)
class Plan:
    """The whole answer of `train plan`."""

    settings: TrainSettings
    estimate: Estimate
    work: Work | None
    timing: Timing | None
    strategies: list[Strategy]
    blocks_keep: tuple[int, int]  # bytes of all: none compute twice, all do
    reply: Timing | None = None  # of one rehearsed reply
    launch: Sequence[str] = ()  # commands that would start it on several GPUs

    @property
    def seconds(self) -> float | None:
        """Of the whole run, its validations included."""
        if self.work is None or self.timing is None:
            return None
        replies = 0.0
        if self.reply is not None:
            teacher = self.reply.evaluate if self.settings.kl else 0.0
            replies = self.work.replies * (self.reply.train + teacher)
        return (
            self.work.packs * self.timing.train
            + replies
            + self.work.evaluations * self.work.validation_packs * self.timing.evaluate
        )

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return {
            "settings": {**self.settings.model_dump(), "learning_rate": self.settings.rate},
            "estimate": self.estimate.to_json(),
            "work": asdict(self.work) if self.work is not None else None,
            "timing": asdict(self.timing) if self.timing is not None else None,
            "seconds": self.seconds,
            "blocks_keep": self.blocks_keep,
            "strategies": [asdict(strategy) for strategy in self.strategies],
            "launch": list(self.launch),
        }

    def text(self) -> str:
        """For a person."""
        parts = (self._model(), self._memory(), self._time(), self._ways(), self.launch)
        return "\n\n".join("\n".join(part) for part in parts if part)

    def _model(self) -> list[str]:
        found, settings = self.estimate, self.settings
        share = found.trained / found.parameters
        return [
            f"model                {settings.model}: {found.parameters / 1e6:,.1f} M parameters, "
            f"{found.base_on_disk / GIB:.2f} GiB on disk",
            f"method               {settings.method}: {found.trained / 1e6:,.2f} M trained "
            f"({share:.2%}), {found.checkpoint_on_disk / GIB:.2f} GiB on disk",
        ]

    def _memory(self) -> list[str]:
        found, memory = self.estimate, self.estimate.memory
        lines = [
            ("framework", memory.framework, "Python, PyTorch and the libraries"),
            ("weights", memory.weights, "of the base, as they are kept"),
            ("adapter", memory.adapter, "what is trained"),
            ("gradients", memory.gradients, ""),
            ("optimizer", memory.optimizer, f"{self.settings.optimizer}, two moments of each"),
            ("activations", memory.activations, f"of {found.tokens} tokens, the largest pack; "
             f"{memory.logits / GIB:.2f} of them logits"),
            ("heap", memory.heap, "freed, and kept by the C library; less with --lean, slower"),
        ]  # fmt: skip
        text = [f"{name:<20} {size / GIB:6.2f} GiB  {note}".rstrip() for name, size, note in lines]
        text.append(f"{'peak':<20} {memory.total / GIB:6.2f} GiB")
        if memory.total == memory.loading:
            text[-1] += "  (while the model is read; training itself needs less)"
        if found.blocks:
            each, less = (size / found.blocks / 2**20 for size in self.blocks_keep)
            text.append(
                f"{'':<20} {found.blocks} blocks keep {each:.1f} MiB each, or {less:.1f} where "
                f"they compute twice (recompute_above: {self.settings.keep} tokens)"
            )
        return text

    def _time(self) -> list[str]:
        if self.work is None or self.timing is None or self.seconds is None:
            return ["time                 give --data, and it is measured on this machine"]
        return [
            f"time                 {self.seconds / 60:.1f} minutes on this machine: "
            f"{self.work.steps} steps, {self.work.packs} packs ({self.work.mean_tokens:.0f} "
            f"tokens on average, {self.timing.train:.2f} s each), {self.work.evaluations} "
            f"validations of {self.work.validation_packs} packs ({self.timing.evaluate:.2f} s each)"
            + self._slower()
        ]

    def _slower(self) -> str:
        """What the time leaves out."""
        names = (
            "base_bits", "offload", "shard",  # a pack's time
            "replay", "refusal_aware", "forgetting_limit",  # what is asked before, or after
        )  # fmt: skip
        slower = [name for name in names if getattr(self.settings, name)]
        return f"; longer with {', '.join(slower)}: not all of it was timed" if slower else ""

    def _ways(self) -> list[str]:
        words = {True: "yes", False: "no", None: "–"}
        lines = [
            (
                way.name,
                f"{way.device_memory / GIB:.2f}",
                f"{way.host_memory / GIB:.2f}",
                f"{way.network / 2**20:,.1f}",
                words[way.fits],
            )
            for way in self.strategies
        ]
        header = ("on GPUs", "GiB each", "GiB of RAM", "MiB sent a step", "fits")
        found = [table(header, lines)]
        if not self.settings.leaves:
            found.append("FSDP and offloading go with whole weights and lora, rslora or ia3")
        return found


def plan(
    settings: TrainSettings,
    data: Path | None = None,
    shape: Shape | None = None,
    gpus: int = 1,
    gpu_memory: float | None = None,
    timed: bool = True,
) -> Plan:
    """Estimate a run: of a data set, or of packs of a given shape."""
    if data is None:
        shape = shape or Shape(rows=settings.max_rows)
        pack, again = shape.pack(), shape.rows < settings.rows_per_step
        found = estimate(settings, pack, again)
        packs = math.ceil(settings.rows_per_step / shape.rows)
        ways = strategies(settings, _on_gpu(settings, pack, again, found), packs, gpus, gpu_memory)
        return Plan(settings, found, None, None, ways, blocks_keep(settings, pack))
    tokenizer, end_token_id, bound = load_tokenizer(settings.model)
    packing = not slides(model_config(settings.model))
    material = read_material(data, tokenizer, end_token_id, bound, settings, packing)
    order = steps.plan(material.train, settings.rows_per_step, settings.seed, settings.epochs)
    replies = round(round(settings.replay * material.rows) * settings.epochs)
    again = replies > 0 or any(len(batch) > 1 for batch in order)
    pack = largest(material.train)
    found = estimate(settings, pack, again)
    lengths = [len(make_pack(pack).tree) for pack in material.train]
    mean = sum(lengths) / len(lengths)
    work = Work(
        packs=sum(map(len, order)),
        replies=replies,
        validation_packs=len(material.validation),
        steps=len(order),
        evaluations=settings.evaluations,
        mean_tokens=mean,
    )
    typical = material.train[min(range(len(lengths)), key=lambda i: abs(lengths[i] - mean))]
    measured = timing(settings, make_pack(typical, steps.LENGTH_MULTIPLE)) if timed else None
    short = timing(settings, _REPLY.pack()) if timed and replies else None
    packs = math.ceil((work.packs + work.replies) / work.steps)
    ways = strategies(settings, _on_gpu(settings, pack, again, found), packs, gpus, gpu_memory)
    return Plan(settings, found, work, measured, ways, blocks_keep(settings, pack), short)


def _on_gpu(settings: TrainSettings, pack: Pack, again: bool, here: Estimate) -> Estimate:
    """The same in bfloat16, which GPUs have and this machine may not."""
    if settings.bfloat16 != "auto" or precision.has_bfloat16():
        return here
    return estimate(settings.model_copy(update={"bfloat16": "on"}), pack, again)


def strategies(
    settings: TrainSettings, found: Estimate, packs: int, gpus: int, gpu_memory: float | None
) -> list[Strategy]:
    """What each way of spreading a run would need of every GPU, of the host and of the network.

    ``packs``: how many a step reads. DDP sends each gradient twice around the ring (reduce, then
    gather), once a step. FSDP splits frozen weights, and gathers them twice a pack, for the forward
    and again for the backward pass; gradients it treats as DDP does. Every process reads the whole
    base into RAM once. Offloading keeps frozen weights there and one block of them on the device.
    """
    memory = found.memory
    state = memory.adapter + memory.gradients + memory.optimizer
    around = (gpus - 1) / gpus
    inside = memory.weights - memory.outside
    block = inside // max(1, found.blocks)
    ways = [("one GPU", GPU_FRAMEWORK + memory.weights + state + memory.activations, 0, 0.0)]
    others = (gpus - 1) * _host(memory)
    gradients = 2 * around * memory.gradients
    if gpus > 1:
        ways.append((f"DDP on {gpus}", ways[0][1], others, gradients))
    if gpus > 1 and settings.leaves:
        share = memory.outside + inside // gpus + 2 * block + state + memory.activations
        gathered = math.ceil(packs / gpus) * 2 * around * inside
        ways.append((f"FSDP on {gpus}", GPU_FRAMEWORK + share, others, gathered + gradients))
    if settings.leaves:
        held = GPU_FRAMEWORK + memory.outside + 2 * block + state + memory.activations
        ways.append(("one GPU, weights offloaded", held, inside, 0.0))
    return [
        Strategy(
            name,
            device,
            _host(memory) + more,
            round(network),
            None if gpu_memory is None else device <= gpu_memory * GIB,
        )
        for name, device, more, network in ways
    ]


def _host(memory: Memory) -> int:
    """RAM of a process whose tensors are on a GPU: the base passes through it once."""
    return memory.framework + memory.weights
