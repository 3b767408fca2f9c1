"""From rows to packs: the tokens that the model reads, and which of them it is taught."""

import itertools
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
    weight: float = 1.0  # of its losses; 1 on average over the train split
    answer_weight: float = 1.0  # of its reply's loss alone, besides
    decline: tuple[int, ...] = ()  # what may be said instead of the answer, for …
    reward: float = 0.0  # … so much of what the right answer earns

    def __len__(self) -> int:
        return len(self.prompt) + max(len(self.answer), len(self.decline))


def make_example(
    row: Row,
    tokenizer: Any,
    contract: Contract,
    end_token_id: int,
    weight: float = 1.0,
    reward: float = 0.0,
    instead: str = "",
) -> Example:
    """Tokenise one row. Prompt and answer are tokenised apart, as they are when serving.

    ``reward``: what declining earns where the row has an answer (`train.curriculum`). ``instead``:
    another reply beside the right one, to be compared with it (`train.prefer`).
    """
    text = contract.prompt(tokenizer, row.context, row.question, row.history)

    def ended(reply: str) -> tuple[int, ...]:
        return (*tokenizer.encode(reply, add_special_tokens=False), end_token_id)

    sufficient = bool(row.sufficient)
    offered = sufficient and reward > 0
    instead = instead or (contract.abstention_phrase if offered else "")
    return Example(
        row_id=row.id,
        context=row.context,
        prompt=tuple(tokenizer.encode(text, add_special_tokens=False)),
        answer=ended(contract.target(row.answers, sufficient)),
        sufficient=sufficient,
        weight=weight,
        decline=ended(instead) if instead else (),
        reward=reward if offered else 0.0,
    )


def tokenise(
    rows: Sequence[Row],
    tokenizer: Any,
    contract: Contract,
    end_token_id: int,
    label: str,
    weighted: bool = False,
    reward: float = 0.0,
) -> list[Example]:
    """All rows of a split as examples, with a progress bar.

    ``weighted``: each counts for as many as it stands for, by its own weight over their mean.
    """
    mean = sum(row.weight for row in rows) / max(1, len(rows)) if weighted else 1.0
    bar = tqdm(rows, desc=f"tokenise {label}", unit="row", leave=False)
    return [
        make_example(
            row, tokenizer, contract, end_token_id, row.weight / mean if weighted else 1.0, reward
        )
        for row in bar
    ]


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
    owners: tuple[int, ...]  # which example each target belongs to
    weights: tuple[float, ...]  # of the examples' replies
    head_weights: tuple[float, ...]  # of what the sufficiency head learns from them
    # The same for what may be said instead, and what that earns in each example.
    decline_at: tuple[int, ...] = ()
    decline_targets: tuple[int, ...] = ()
    decline_owners: tuple[int, ...] = ()
    rewards: tuple[float, ...] = ()

    @property
    def replies(self) -> list[int]:
        """Tokens whose next one is scored: the answers', then those of what may be said instead."""
        return [*self.answer_at, *self.decline_at]

    @property
    def plain(self) -> bool:
        """Whether all examples count alike, and nothing but their answers is right."""
        return not self.decline_at and all(weight == 1 for weight in self.weights)

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
    answers = [
        _hang(tree, segment, example.answer)
        for example, segment in zip(examples, segments, strict=True)
    ]
    declined = [
        _hang(tree, segment, example.decline)
        for example, segment in zip(examples, segments, strict=True)
    ]
    if not tree.is_chain():
        tree.add([0] * (-len(tree) % multiple))

    def owners(replies: Sequence[Sequence[int]]) -> tuple[int, ...]:
        return tuple(owner for owner, at in enumerate(replies) for _ in at)

    return Pack(
        tree,
        answer_at=tuple(itertools.chain(*answers)),
        targets=tuple(itertools.chain(*(e.answer for e in examples))),
        head_at=tuple(map(tree.last, segments)),
        sufficient=tuple(e.sufficient for e in examples),
        owners=owners(answers),
        weights=tuple(e.weight * e.answer_weight for e in examples),
        head_weights=tuple(e.weight for e in examples),
        decline_at=tuple(itertools.chain(*declined)),
        decline_targets=tuple(itertools.chain(*(e.decline for e in examples))),
        decline_owners=owners(declined),
        rewards=tuple(e.reward for e in examples),
    )


def _hang(tree: Tree, segment: int, reply: Sequence[int]) -> list[int]:
    """Hang a reply under a prompt; the places from which its tokens are predicted."""
    if not reply:
        return []
    last = tree.last(tree.add(reply[:-1], segment))  # nothing is read off the end token
    return [tree.last(segment), *range(last - len(reply) + 2, last + 1)]


def pack_examples(
    examples: Sequence[Example], max_rows: int, max_tokens: int
) -> list[list[Example]]:
    """Group examples by context into packs of at most ``max_rows`` rows and ``max_tokens``."""
    contexts = [example.context for example in examples]
    own = own_lengths(contexts, [len(example.prompt) for example in examples])
    # The shortest question has a length too; the bound is one on memory, not on meaning.
    lengths = [
        more + len(e.answer) + len(e.decline) + 16 for more, e in zip(own, examples, strict=True)
    ]
    return [
        [examples[index] for index in pack]
        for pack in group_by_prefix(contexts, lengths, max_rows, max_tokens)
    ]
