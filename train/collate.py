"""From rows to packs: the tokens that the model reads, and which of them it is taught."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from abstain.prefix import Tree, branch_out, group_by_prefix, own_lengths
from curate.contract import Contract
from curate.record import Row


@dataclass(frozen=True)
class Example:
    """One row as tokens: the prompt as serving sends it, and the answer with its end token."""

    row_id: str
    context: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]  # ends with the end token: a model that never learns it never stops
    sufficient: bool | None  # None: no question of ours, but a rehearsed reply

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


def make_example(row: Row, tokenizer: Any, contract: Contract, end_token_id: int) -> Example:
    """Tokenise one row. Prompt and answer are tokenised apart, as they are when serving."""
    text = contract.prompt(tokenizer, row.context, row.question, row.history)
    target = contract.target(row.answers, bool(row.sufficient))
    return Example(
        row_id=row.id,
        context=row.context,
        prompt=tuple(tokenizer.encode(text, add_special_tokens=False)),
        answer=(*tokenizer.encode(target, add_special_tokens=False), end_token_id),
        sufficient=bool(row.sufficient),
    )


def tokenise(
    rows: Sequence[Row], tokenizer: Any, contract: Contract, end_token_id: int, label: str
) -> list[Example]:
    """All rows of a split as examples, with a progress bar."""
    bar = tqdm(rows, desc=f"tokenise {label}", unit="row", leave=False)
    return [make_example(row, tokenizer, contract, end_token_id) for row in bar]


def too_long(
    fold: str, examples: Sequence[Example], max_tokens: int, window: int | None
) -> list[str]:
    """What is wrong with rows of more than ``max_tokens`` tokens, the first of them by name.

    They are never cut: that would leave an answer without its end, or without its context. Nor may
    they be longer than the model's window.
    """
    name = f"max_tokens = {max_tokens}"
    if window is not None and window < max_tokens:
        max_tokens, name = window, f"the model's window of {window} tokens"
    emptied = [e for e in examples if len(e.prompt) >= max_tokens]
    cut = [e for e in examples if len(e.prompt) < max_tokens < len(e)]
    errors = []
    for what, found in (("would lose their whole answer", emptied), ("would lose part of it", cut)):
        if found:
            names = ", ".join(f"{e.row_id} ({len(e):,} tokens)" for e in found[:5])
            errors.append(
                f"{len(found)} rows of {fold} {what} to truncation at {name}: {names}"
                f"{', …' if len(found) > 5 else ''}; raise --max-tokens, or lower "
                "clean.max_context_chars in the recipe"
            )
    return errors


@dataclass(frozen=True)
class Pack:
    """Examples over one shared prefix, and where in the tree their losses are read."""

    tree: Tree
    answer_at: tuple[int, ...]  # tokens whose next token is taught
    targets: tuple[int, ...]  # those next tokens
    head_at: tuple[int, ...]  # each example's last prompt token
    sufficient: tuple[bool | None, ...]

    @property
    def labelled(self) -> list[int]:
        """Numbers of the examples that the sufficiency head learns from."""
        return [number for number, label in enumerate(self.sufficient) if label is not None]


def make_pack(examples: Sequence[Example], multiple: int = 1) -> Pack:
    """Lay examples of one context into one tree, its length filled up to a multiple.

    The filling is a branch that nothing else sees. A tree of one row stays the plain sequence
    that models without packing need.
    """
    tree, segments = branch_out([example.prompt for example in examples])
    answer_at: list[int] = []
    targets: list[int] = []
    head_at: list[int] = []
    for example, segment in zip(examples, segments, strict=True):
        head_at.append(tree.last(segment))
        answer = tree.add(example.answer[:-1], segment)  # nothing is read off the end token
        count = len(example.answer)
        last = tree.last(answer)
        answer_at += [head_at[-1], *range(last - count + 2, last + 1)]
        targets += example.answer
    if not tree.is_chain():
        tree.add([0] * (-len(tree) % multiple))
    return Pack(
        tree,
        tuple(answer_at),
        tuple(targets),
        tuple(head_at),
        tuple(e.sufficient for e in examples),
    )


def pack_examples(
    examples: Sequence[Example], max_rows: int, max_tokens: int
) -> list[list[Example]]:
    """Group examples by context into packs of at most ``max_rows`` rows and ``max_tokens``."""
    contexts = [example.context for example in examples]
    own = own_lengths(contexts, [len(example.prompt) for example in examples])
    # The shortest question has a length too; the bound is one on memory, not on meaning.
    lengths = [more + len(e.answer) + 16 for more, e in zip(own, examples, strict=True)]
    return [
        [examples[index] for index in pack]
        for pack in group_by_prefix(contexts, lengths, max_rows, max_tokens)
    ]
