"""What one optimiser step reads, and what the model is taught by it."""

import contextlib
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from abstain.head import SufficiencyHead
from abstain.prefix import forward
from train.collate import Example, Pack, make_pack

Batch = list[list[Example]]  # the packs of one optimiser step


@dataclass
class Losses:
    """Sums over some packs, so that they can be averaged over tokens and rows, not packs."""

    answer: float = 0.0
    head: float = 0.0
    tokens: int = 0
    rows: int = 0

    def add(self, other: "Losses") -> None:
        """Add the sums of further packs."""
        self.answer += other.answer
        self.head += other.head
        self.tokens += other.tokens
        self.rows += other.rows

    def means(self, head_weight: float) -> dict[str, float]:
        """Loss per supervised token, per row (head), and the sum that is minimised."""
        answer, head = self.answer / max(1, self.tokens), self.head / max(1, self.rows)
        return {"answer": answer, "head": head, "total": answer + head_weight * head}


def batches(packs: Sequence[list[Example]], rows: int, seed: int, epoch: int) -> list[Batch]:
    """The packs of one epoch, shuffled and gathered to about ``rows`` rows a step.

    A function of seed and epoch alone: a resumed run finds its place by counting steps.
    """
    order = list(packs)
    random.Random(f"{seed}/{epoch}").shuffle(order)
    result: list[Batch] = [[]]
    for pack in order:
        if result[-1] and sum(map(len, result[-1])) + len(pack) > rows:
            result.append([])
        result[-1].append(pack)
    return result


def pack_losses(
    model: Any, head: SufficiencyHead | None, pack: Pack
) -> tuple[Tensor, Tensor, Losses]:
    """Summed answer loss and summed head loss of one pack, and their numbers.

    Logits are computed only where an answer token or the end token is to be predicted.
    """
    count = len(pack.answer_at)
    output = forward(
        model, pack.tree, [*pack.answer_at, *pack.head_at], head.layers if head else ()
    )
    targets = torch.tensor(pack.targets, device=output.logits.device)
    answer = functional.cross_entropy(output.logits[:count], targets, reduction="sum")
    label = torch.tensor(pack.sufficient, device=targets.device).float()
    read_out = answer.new_zeros(())
    if head is not None:
        logits = head(output.hidden[count:])
        read_out = functional.binary_cross_entropy_with_logits(logits, label, reduction="sum")
    return answer, read_out, Losses(answer.item(), read_out.item(), count, len(label))


@contextlib.contextmanager
def recomputing(model: Any, on: bool) -> Iterator[None]:
    """Keep no activations inside the blocks but compute them again for the backward pass.

    A LoRA with dropout on every linear layer keeps a float32 mask and a float32 product for
    each of them, about 2.5 MB a token on a 135M model. For a long pack, computing them twice
    costs less time than touching so much fresh memory, and it bounds the peak.
    """
    if not on:
        yield
        return
    base = model.get_base_model()
    base.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield
    finally:
        base.gradient_checkpointing_disable()


def backward(
    model: Any,
    head: SufficiencyHead | None,
    batch: Batch,
    head_weight: float,
    autocast: Any,
    recompute_above: int,
) -> Losses:
    """Accumulate the gradients of one step, pack by pack.

    Each pack's sums are divided by the whole step's token and row counts, so that the gradient
    is that of one large batch, however the rows were packed.
    """
    total = Losses(
        tokens=sum(len(example.answer) for pack in batch for example in pack),
        rows=sum(map(len, batch)),
    )
    done = Losses()
    for examples in batch:
        pack = make_pack(examples)
        with recomputing(model, len(pack.tree) > recompute_above):
            with autocast():
                answer, read_out, losses = pack_losses(model, head, pack)
            (answer / total.tokens + head_weight * read_out / total.rows).backward()
        done.add(losses)
    return done


@torch.no_grad()
def evaluate(
    model: Any, head: SufficiencyHead | None, packs: Iterable[list[Example]], autocast: Any
) -> Losses:
    """Losses over a whole split with dropout off; leaves the model's mode as it was."""
    was_training = model.training
    model.eval()
    total = Losses()
    for examples in packs:
        with autocast():
            total.add(pack_losses(model, head, make_pack(examples))[2])
    model.train(was_training)
    return total
