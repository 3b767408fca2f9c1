"""What one optimiser step reads, and what the model is taught by it."""

import itertools
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from abstain import virtual
from abstain.calibrator import fit
from abstain.head import SufficiencyHead, middle_layers
from abstain.prefix import forward
from abstain.selection import log_loss
from abstain.virtual import without_adapter
from curate.auroc import auroc
from train.collate import Example, Pack, make_pack

Batch = list[list[Example]]  # the packs of one optimiser step

# oneDNN compiles kernels for every shape of matrix that it meets, and keeps them with their scratch
# memory, about 20 MB for each sequence length of a 135M model. Counts rounded up to a multiple are
# few.
LENGTH_MULTIPLE = 64
LOGITS_MULTIPLE = 32
# What `transformers` gives a block that can recompute.
_RECOMPUTE = "_gradient_checkpointing_func"


@dataclass
class Losses:
    """Sums over some packs, so that they can be averaged over tokens and rows, not packs."""

    answer: float = 0.0
    head: float = 0.0
    tokens: int = 0  # taught
    rows: int = 0  # labelled
    read: int = 0  # tokens that the model saw, a shared prefix once

    def add(self, other: "Losses") -> None:
        """Add the sums of further packs."""
        self.answer += other.answer
        self.head += other.head
        self.tokens += other.tokens
        self.rows += other.rows
        self.read += other.read

    def means(self, head_weight: float) -> dict[str, float]:
        """Loss per supervised token, per row (head), and the sum that is minimised."""
        answer, head = self.answer / (self.tokens or 1), self.head / (self.rows or 1)
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


def plan(packs: Sequence[list[Example]], rows: int, seed: int, epochs: float) -> list[Batch]:
    """What every step of a run reads, the last epoch cut where ``epochs`` is fractional.

    Epochs differ in their number of steps, since packs of several rows fill them differently.
    """
    result: list[Batch] = []
    for epoch in range(math.ceil(epochs)):
        steps = batches(packs, rows, seed, epoch)
        result += steps[: max(1, math.ceil(len(steps) * min(1.0, epochs - epoch)))]
    return result


def with_rehearsal(
    plan: Sequence[Batch], rehearsed: Sequence[Example], epochs: float, seed: int
) -> list[Batch]:
    """The same steps, each with its share of rehearsed replies beside its rows.

    Every reply comes once a pass over the rows; none makes a step of its own.
    """
    if not rehearsed:
        return list(plan)
    turns = itertools.cycle(random.Random(f"{seed}/rehearsal").sample(rehearsed, len(rehearsed)))
    count, result = 0, []
    for number, batch in enumerate(plan, 1):
        due = round(len(rehearsed) * epochs * number / len(plan))
        result.append([*batch, *([next(turns)] for _ in range(due - count))])
        count = due
    return result


@dataclass(frozen=True)
class Scored:
    """One pack's summed losses, to be differentiated, and the head's logits."""

    answer: Tensor
    head: Tensor
    logits: list[float]
    pack: Pack

    def losses(self) -> Losses:
        """The sums as numbers."""
        return Losses(
            self.answer.item(),
            self.head.item(),
            tokens=len(self.pack.targets),
            rows=len(self.pack.labelled),
            read=len(self.pack.tree),
        )


def score_pack(model: Any, head: SufficiencyHead | None, pack: Pack) -> Scored:
    """Summed answer loss and summed head loss of one pack."""
    answer, read_out, logits = pack_losses(model, head, pack)
    return Scored(answer, read_out, logits.tolist(), pack)


def pack_losses(
    model: Any, head: SufficiencyHead | None, pack: Pack
) -> tuple[Tensor, Tensor, Tensor]:
    """Summed answer loss, summed head loss, and the head's logits [rows] (none without a head).

    Logits are computed only where an answer token or the end token is to be predicted.
    """
    count, rows = len(pack.replies), len(pack.head_at)
    at = [*pack.replies, *pack.head_at]
    at += at[-1:] * (-len(at) % LOGITS_MULTIPLE)
    output = forward(model, pack.tree, at, head.layers if head else ())
    answer = answer_loss(output.logits[:count], pack)
    if head is None:
        return answer, answer.new_zeros(()), answer.new_zeros(0)
    logits = head(output.hidden[count : count + rows][pack.labelled])
    labels = [float(label) for label in pack.sufficient if label is not None]
    label = torch.tensor(labels, device=logits.device)
    weight = torch.tensor([pack.head_weights[i] for i in pack.labelled], device=logits.device)
    read_out = functional.binary_cross_entropy_with_logits(logits, label, weight, reduction="sum")
    return answer, read_out, logits


def answer_loss(logits: Tensor, pack: Pack) -> Tensor:
    """Summed loss of the replies from their logits [answers' and declines' tokens, vocabulary].

    Of an answer, its negative log-likelihood. Where declining earns a part λ of what the answer
    does, −log(p(answer) + λ·p(phrase)): the logarithm of the reward to be expected, in which each
    reply's likelihood counts by its share of that reward (Liu et al. 2019, "Deep Gamblers").
    """
    targets = torch.tensor([*pack.targets, *pack.decline_targets], device=logits.device)
    if pack.plain:
        return functional.cross_entropy(logits, targets, reduction="sum")
    nats = functional.cross_entropy(logits, targets, reduction="none")
    answer = _by_owner(nats[: len(pack.targets)], pack.owners, pack)
    if pack.decline_at:
        decline = _by_owner(nats[len(pack.targets) :], pack.decline_owners, pack)
        reward = torch.tensor(pack.rewards, device=logits.device).log()
        answer = -torch.logaddexp(-answer, reward - decline)
    return (answer * torch.tensor(pack.weights, device=logits.device)).sum()


def _by_owner(nats: Tensor, owners: Sequence[int], pack: Pack) -> Tensor:
    """Sums [examples] over the tokens of each."""
    index = torch.tensor(owners, device=nats.device)
    return nats.new_zeros(len(pack.weights)).index_add(0, index, nats)


def divergence(model: Any, pack: Pack) -> Tensor:
    """KL(base ‖ model) summed over a pack's answers: how far the model has left its base there."""
    at = list(pack.answer_at)
    was_training = model.training
    model.eval()  # the base's own dropout too
    with torch.no_grad(), without_adapter(model) as base:
        before = forward(base, pack.tree, at).logits.log_softmax(-1)
    model.train(was_training)
    now = forward(model, pack.tree, at).logits.log_softmax(-1)
    return functional.kl_div(now, before, reduction="sum", log_target=True)


def recomputable(model: Any) -> list[Any]:
    """The blocks that can compute their activations twice; virtual tokens forbid it.

    Such a block forgets the keys and values that stand before its tokens.
    """
    if virtual.count(model):
        return []
    base = model.get_base_model()
    return [m for m in base.modules() if isinstance(m, GradientCheckpointingLayer)]


def recompute_activations(model: Any, tokens: int, keep: int) -> None:
    """Have some blocks keep no activations of a pack, but compute them again going backward.

    A 135M model with LoRA on every linear layer keeps about 1 MB a token. As many blocks recompute
    as it takes to keep no more than ``keep`` tokens would in all blocks: the memory of long packs
    is bounded, and they pay for what lies above the bound only.
    """
    blocks = recomputable(model)
    if blocks and tokens > keep and not any(hasattr(block, _RECOMPUTE) for block in blocks):
        base = model.get_base_model()
        base.activation_checkpointing_enable({"use_reentrant": False})
        # It has had the embeddings ask for gradients, which only reentrant checkpoints need: the
        # backward pass would go down through all that lies below what is trained.
        base.disable_input_require_grads()
    kept = len(blocks) * keep // tokens
    for number, block in enumerate(blocks):
        block.gradient_checkpointing = number < len(blocks) - kept


def make_head(model: Any, weight: float) -> SufficiencyHead | None:
    """A new sufficiency head beside a model; none where its loss has no weight."""
    if weight == 0:
        return None
    config = model.config.get_text_config()
    head = SufficiencyHead(middle_layers(config.num_hidden_layers), config.hidden_size)
    return head.to(model.device)


def trained(*modules: Any) -> list[Any]:
    """The parameters that an optimiser is to have; what is None has none."""
    every = (p for module in modules if module is not None for p in module.parameters())
    return [parameter for parameter in every if parameter.requires_grad]


def counts(batch: Batch) -> Losses:
    """The taught tokens and labelled rows of a step, and no losses yet.

    Counted without weights: divided by the weights of its own step, a heavy row alone in one would
    count like a light one.
    """
    examples = [example for pack in batch for example in pack]
    return Losses(
        tokens=sum(len(example.answer) for example in examples),
        rows=sum(example.sufficient is not None for example in examples),
    )


def backward(
    model: Any,
    head: SufficiencyHead | None,
    batch: Batch,
    head_weight: float,
    autocast: Any,
    recompute_above: int,
    kl: float = 0.0,
    total: Losses | None = None,
) -> Losses:
    """Accumulate the gradients of one step, pack by pack.

    Each pack's sums are divided by the whole step's token and row counts (``total``, where
    ``batch`` is only a part of it), so that the gradient is that of one large batch, however the
    rows were packed. Rehearsed replies are learnt like answers, or, for ``kl`` above 0, as so many
    times their divergence from the base.
    """
    total = total or counts(batch)
    done = Losses()
    for examples in batch:
        pack = make_pack(examples, LENGTH_MULTIPLE)
        recompute_activations(model, len(pack.tree), recompute_above)
        rehearsed = not pack.labelled
        with autocast():
            if rehearsed and kl:
                answer = kl * divergence(model, pack)
                scored = Scored(answer, answer.new_zeros(()), [], pack)
            else:
                scored = score_pack(model, None if rehearsed else head, pack)
        answer, read_out = scored.answer / (total.tokens or 1), scored.head / (total.rows or 1)
        loss = answer + head_weight * read_out
        loss.backward()
        if any(example.weight for example in examples):
            done.add(scored.losses())
    return done


@torch.no_grad()
def evaluate(
    model: Any,
    head: SufficiencyHead | None,
    packs: Iterable[list[Example]],
    head_weight: float,
    autocast: Any,
) -> dict[str, float]:
    """Mean losses over a whole split with dropout off, and the head's AUROC against the label.

    A head that grows too sure of itself ranks no worse, and `abstain calibrate` sets its scale
    right: so the total, by which weights are kept and training ends, takes its log-loss after Platt
    scaling (``head_calibrated``). Leaves the model's mode as it was.
    """
    was_training = model.training
    model.eval()
    total = Losses()
    logits: list[float] = []
    labels: list[bool] = []
    for examples in packs:
        with autocast():
            scored = score_pack(model, head, make_pack(examples, LENGTH_MULTIPLE))
        total.add(scored.losses())
        logits += scored.logits
        labels += [label for label in scored.pack.sufficient if label is not None]
    model.train(was_training)
    means = total.means(head_weight)
    means["head_calibrated"] = means["head"]
    values, sufficient = np.array(logits), np.array(labels)
    if head is not None and len(set(labels)) == 2 and np.isfinite(values).all():
        platt = fit("platt", values[:, None], sufficient, ["sufficiency_head"])
        means["head_calibrated"] = log_loss(platt.probability(values[:, None]), sufficient)
        means["head_auroc"] = auroc(values, sufficient)
    means["total"] = means["answer"] + head_weight * means["head_calibrated"]
    return means
