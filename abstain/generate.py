"""Greedy and sampled decoding of many branches of one tree in step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from abstain.draws import generator
from abstain.prefix import Tree, forward

# Which token comes next, [branches], from log-probabilities [branches, vocabulary]; the second
# argument are the branches' numbers, the third the number of the step.
Choose = Callable[[Tensor, Sequence[int], int], Tensor]


@dataclass
class Grown:
    """One branch's tokens, the end token included where it came."""

    branch: int  # its segment in the tree
    tokens: list[int] = field(default_factory=list)
    log_p: list[float] = field(default_factory=list)
    entropy: list[float] = field(default_factory=list)  # of each token's distribution


def decode(
    model: Any,
    tree: Tree,
    parents: Sequence[int],
    first: Tensor,
    cache: Any,
    end_token_id: int,
    max_new_tokens: int,
    choose: Choose,
) -> list[Grown]:
    """Grow one branch below each of ``parents`` until it ends, all of them in step.

    ``first`` [parents, vocabulary] are the logits behind each parent's last token.
    """
    grown = [Grown(tree.add([], parent)) for parent in parents]
    active = list(range(len(parents)))
    logits = first
    for step in range(max_new_tokens):
        log_p = logits.log_softmax(-1)
        tokens = choose(log_p, active, step)
        values = log_p.gather(-1, tokens[:, None])[:, 0].tolist()
        entropies = -(log_p.exp() * log_p).sum(-1)
        for row, token, value, entropy in zip(
            active, tokens.tolist(), values, entropies.tolist(), strict=True
        ):
            grown[row].tokens.append(token)
            grown[row].log_p.append(value)
            grown[row].entropy.append(entropy)
        active = [row for row in active if grown[row].tokens[-1] != end_token_id]
        if not active or step + 1 == max_new_tokens:
            break
        for row in active:
            tree.extend(grown[row].branch, grown[row].tokens[-1:])
        size = len(tree)
        logits = forward(model, tree, range(size - len(active), size), cache=cache).logits
    return grown


def greedy(log_p: Tensor, _: Sequence[int], __: int) -> Tensor:
    """The likeliest token."""
    return log_p.argmax(-1)


def sampled(names: Sequence[str], seed: int, temperature: float) -> Choose:
    """Tokens drawn at a temperature; each branch draws by its own name, whatever is beside it."""
    generators = [generator(f"{seed}/{name}") for name in names]

    def choose(log_p: Tensor, branches: Sequence[int], _: int) -> Tensor:
        # In float64, so that rounding of the sum does not cut off the last tokens.
        cumulated = (log_p.double() / temperature).softmax(-1).cumsum(-1)
        drawn = torch.tensor([[generators[b].random()] for b in branches], dtype=torch.float64)
        scaled = drawn.to(log_p.device) * cumulated[:, -1:]
        return torch.searchsorted(cumulated, scaled, right=True)[:, 0].clamp(
            max=log_p.shape[-1] - 1
        )

    return choose
