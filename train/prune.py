"""`train prune`: a base model with a share of its weights set to zero, before fine-tuning.

Which weights matter least is told by their size, or by size times the length of what enters them
(Sun et al. 2024, "A Simple and Effective Pruning Approach for Large Language Models": Wanda). With
as many zeros in every row of every linear layer, what fine-tuning adds beside them stays dense; a
runtime that stores or skips zeros gains by it, PyTorch itself does not.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from tqdm import tqdm

from abstain.blocks import decoder
from abstain.groups import by_context
from abstain.model import LoadedModel, load_model
from abstain.run import CONFIG
from curate.contract import Contract
from curate.errors import UserError
from curate.files import writable_folder, write_json
from curate.record import read_fold
from train.export import write_model
from train.forgetting import bits_a_byte

By = Literal["magnitude", "wanda"]
PROMPTS = 32  # one a context of the train split, that Wanda measures lengths on
_TOKENS = 512  # of each, at most


@dataclass(frozen=True)
class Pruned:
    """What pruning has done."""

    by: By
    sparsity: float  # of the linear layers of the blocks
    zeros: int
    weights: int  # of those layers
    bits_a_byte: tuple[float, float]  # of plain text, before and after

    def to_json(self) -> dict[str, Any]:
        """For a program."""
        return asdict(self)


def prune(model: str, out: Path, by: By, sparsity: float, data: Path | None = None) -> Pruned:
    """Write a pruned copy of ``model`` to ``out``, a folder that `train run --model` takes.

    ``data`` gives Wanda the prompts that it measures on. Raises `UserError` where it is missing, or
    where ``model`` is a run: pruning comes before fine-tuning.
    """
    if by == "wanda" and data is None:
        raise UserError("wanda measures what enters each layer: give --data, prompts to run")
    if out.resolve() == Path(model).resolve():
        raise UserError(f"{out}: is the model itself; give another folder")
    loaded = load_model(model)
    if (Path(model) / CONFIG).exists():
        raise UserError(f"{model}: is a run; prune its base, and fine-tune that")
    if not any(any(linear(block)) for block in decoder(loaded.model).layers):
        kind = type(loaded.model).__name__
        raise UserError(f"{model}: the blocks of {kind} have no linear layers of PyTorch to prune")
    writable_folder(out)
    before = bits_a_byte(loaded)
    if by == "magnitude" or data is None:
        for block in tqdm(decoder(loaded.model).layers, desc="prune", unit="block"):
            for layer in linear(block):
                zero(layer.weight, layer.weight.abs(), sparsity)
    else:
        wanda(loaded, prompts(loaded, data), sparsity)
    weights = [layer.weight for b in decoder(loaded.model).layers for layer in linear(b)]
    found = Pruned(
        by,
        sparsity,
        sum(int((weight == 0).sum()) for weight in weights),
        sum(weight.numel() for weight in weights),
        (before, bits_a_byte(loaded)),
    )
    write_model(loaded, out)
    write_json(out / "pruning.json", {"model": model, **found.to_json()})
    return found


def linear(block: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers of a block."""
    yield from (module for module in block.modules() if isinstance(module, nn.Linear))


@torch.no_grad()
def zero(weight: Tensor, score: Tensor, sparsity: float) -> None:
    """Set the lowest scores' weights to zero, as many in each row of ``weight`` [out, in]."""
    count = round(sparsity * weight.shape[1])
    lowest = score.argsort(dim=1, stable=True)[:, :count]
    weight.scatter_(1, lowest, 0.0)


def prompts(loaded: LoadedModel, data: Path) -> list[list[int]]:
    """Some prompts of the train split as tokens: what the model will have to read."""
    contexts = list(by_context(read_fold(data, "train")).values())
    if not contexts:
        raise UserError(f"{data}: its train split has no rows to measure on")
    drawn = random.Random(13).sample(contexts, min(PROMPTS, len(contexts)))
    texts = [
        Contract().prompt(loaded.tokenizer, row.context, row.question, row.history)
        for row, *_ in drawn
    ]
    encode = loaded.tokenizer.encode
    return [encode(text, add_special_tokens=False)[:_TOKENS] for text in texts]


@torch.no_grad()
def wanda(loaded: LoadedModel, prompts: Sequence[Sequence[int]], sparsity: float) -> None:
    """Prune block by block, each by what enters it when those below are pruned already."""
    blocks = decoder(loaded.model).layers
    entering, with_them = _entering(loaded, prompts)
    for block, more in zip(tqdm(blocks, desc="prune", unit="block"), with_them, strict=True):
        squares: dict[nn.Linear, Tensor] = {}

        def note(layer: Any, given: Any, squares: dict[nn.Linear, Tensor] = squares) -> None:
            square = given[0].float().flatten(0, -2).square().sum(0)
            squares[layer] = squares.get(layer, torch.zeros_like(square)) + square

        hooks = [layer.register_forward_pre_hook(note) for layer in linear(block)]
        for hidden, given in zip(entering, more, strict=True):
            block(hidden, **given)
        for hook in hooks:
            hook.remove()
        for layer, square in squares.items():
            zero(layer.weight, layer.weight.abs() * square.sqrt(), sparsity)
        entering = [
            _first(block(hidden, **given)) for hidden, given in zip(entering, more, strict=True)
        ]


def _entering(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]]
) -> tuple[list[Tensor], list[list[dict[str, Any]]]]:
    """What enters the first block, by prompt; and what else each block is given, by block, prompt.

    Masks and positions differ between blocks where some attend to a window only.
    """
    first: list[Tensor] = []
    blocks = decoder(loaded.model).layers
    more: list[list[dict[str, Any]]] = [[] for _ in blocks]

    def note(number: int, given: Any, named: dict[str, Any]) -> None:
        more[number].append(named)
        if number == 0:
            first.append(given[0])

    hooks = [
        block.register_forward_pre_hook(
            lambda _, given, named, number=number: note(number, given, named), with_kwargs=True
        )
        for number, block in enumerate(blocks)
    ]
    for prompt in prompts:
        loaded.model(torch.tensor([prompt], device=loaded.model.device), use_cache=False)
    for hook in hooks:
        hook.remove()
    return first, more


def _first(output: Any) -> Tensor:
    """Hidden states, with or without anything behind them."""
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result
