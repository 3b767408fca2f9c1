"""Reading a pack of prompts: one forward pass, the phrase scored behind each, answers generated.

What that leaves (a tree of tokens, keys and values, hidden states) is what all further evidence is
gathered from.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from abstain import virtual
from abstain.blocks import decoder, entering
from abstain.generate import Grown, decode, greedy
from abstain.mc_dropout import Item, Trace
from abstain.model import LoadedModel
from abstain.prefix import Tree, branch_out, common_prefix, forward, supports_packing
from abstain.prefix_cache import Prefix, join
from curate.contract import Contract


@dataclass(frozen=True)
class Read:
    """What reading and answering a pack leaves behind."""

    prompts: list[list[int]]
    tree: Tree
    questions: list[int]  # each prompt's segment behind its root
    phrase_at: list[list[int]]  # each phrase's tokens in the tree; empty without packing
    first: Tensor  # [rows, vocabulary], behind the prompts
    hidden: dict[int, Tensor]  # [rows, hidden] of the last prompt tokens, by layer
    log_p_phrase: Tensor  # [rows, tokens of the phrase and the end token]
    grown: list[Grown]
    trace: Trace

    def root_at(self, number: int) -> list[int]:
        """Where the tokens lie that a prompt shares with others."""
        return self.tree.indices(self.tree.parents[self.questions[number]])

    def items(self, names: Sequence[str], bare: Sequence[Sequence[int]]) -> list[Item]:
        """Each answer, and where reading and generating have left its tokens.

        ``names`` key their random draws. ``bare`` are prompts with the same contexts and another
        question: where the question begins is a matter of a row alone, not of its neighbours.
        """
        return [
            Item(
                name,
                prompt,
                common_prefix([prompt, bare[number]]),
                grown.tokens,
                [*self.root_at(number), *self.tree.indices(question)],
                self.tree.indices(grown.branch)[: max(0, len(grown.tokens) - 1)],
                self.phrase_at[number] if self.phrase_at else [],
                {layer: states[number] for layer, states in self.hidden.items()},
            )
            for number, (name, prompt, grown, question) in enumerate(
                zip(names, self.prompts, self.grown, self.questions, strict=True)
            )
        ]


class Reader:
    """Reads prompts with a model, and knows its abstention phrase as tokens."""

    def __init__(self, loaded: LoadedModel, contract: Contract) -> None:
        self.model = loaded.model
        self.end_token_id = loaded.end_token_id
        self.packing = supports_packing(loaded.model)
        phrase = loaded.tokenizer.encode(contract.abstention_phrase, add_special_tokens=False)
        self.phrase = [*phrase, loaded.end_token_id]

    @torch.inference_mode()
    def prefix(self, tokens: Sequence[int], recorded: Sequence[int] = ()) -> Prefix:
        """Compute what prompts begin with, and what enters some blocks meanwhile."""
        tree = Tree()
        tree.add(tokens)
        cache = join(self.model, [])
        with self._recording(recorded) as entered:
            forward(self.model, tree, [len(tree) - 1], cache=cache)
        before = virtual.count(self.model)
        return Prefix(
            tuple(tokens),
            [(layer.keys[:, :, before:], layer.values[:, :, before:]) for layer in cache.layers],
            {number: states[-1] for number, states in entered.items()},
        )

    @contextlib.contextmanager
    def _recording(self, blocks: Sequence[int]) -> Iterator[dict[int, list[Tensor]]]:
        """Collect what enters some blocks, by their numbers: a tensor for each forward pass."""
        with contextlib.ExitStack() as stack:
            layers = decoder(self.model).layers if blocks else ()
            yield {number: stack.enter_context(entering(layers[number])) for number in blocks}

    @torch.inference_mode()
    def read(
        self,
        prompts: list[list[int]],
        max_new_tokens: int,
        layers: Sequence[int],
        recorded: Sequence[int] = (),
        keep: Callable[[dict[int, Tensor]], list[bool]] | None = None,
        known: Sequence[Prefix] = (),
        of: Sequence[int] = (),
    ) -> Read:
        """Read, score, generate; keep hidden states of ``layers``, and what enters some blocks.

        ``keep`` tells from these states which prompts are worth an answer; the others get none.
        Prompts share as many first tokens as they can; or, where ``known`` are prefixes that have
        been computed, prompt i begins with prefix ``of[i]``, and all of them are read together.
        """
        if known:
            tree = Tree()
            roots = [tree.add(prefix.tokens) for prefix in known]
            questions = [
                tree.add(prompt[len(known[number].tokens) :], roots[number])
                for prompt, number in zip(prompts, of, strict=True)
            ]
        else:
            tree, questions = branch_out(prompts)
        phrases: list[int] = []
        if self.packing:
            phrases = [tree.add(self.phrase[:-1], question) for question in questions]
        phrase_at = [tree.indices(phrase) for phrase in phrases]
        last = [tree.last(question) for question in questions]
        inner = [index for at in phrase_at for index in at]
        cache = join(self.model, known)
        with self._recording(recorded) as entered:
            output = forward(self.model, tree, [*last, *inner], layers, cache)
            first, rest = output.logits[: len(last)], output.logits[len(last) :]
            states = output.hidden[: len(last)]
            hidden = {layer: states[:, number] for number, layer in enumerate(layers)}
            kept = [True] * len(last) if keep is None else keep(hidden)
            grown = self._generate(tree, questions, first, cache, max_new_tokens, kept)
        if not self.packing:
            rest = self._phrase_logits(prompts[0])
        before = {number: [prefix.entering[number] for prefix in known] for number in recorded}
        return Read(
            prompts,
            tree,
            questions,
            phrase_at,
            first,
            hidden,
            self._phrase_scores(first, rest.view(len(last), len(self.phrase) - 1, -1)),
            grown,
            Trace(
                cache,
                {n: torch.cat([*before[n], *states]) for n, states in entered.items()},
            ),
        )

    def _generate(
        self,
        tree: Tree,
        questions: Sequence[int],
        first: Tensor,
        cache: Any,
        max_new_tokens: int,
        kept: list[bool],
    ) -> list[Grown]:
        """An answer below each question that is kept, an empty branch below the others."""
        rows = [number for number, worth in enumerate(kept) if worth]
        grown = [Grown(question) for question in questions]
        if rows:
            parents, end = [questions[row] for row in rows], self.end_token_id
            found = decode(
                self.model, tree, parents, first[rows], cache, end, max_new_tokens, greedy
            )
            for row, answer in zip(rows, found, strict=True):
                grown[row] = answer
        return grown

    def _phrase_logits(self, prompt: list[int]) -> Tensor:
        """The phrase scored in a pass of its own, where siblings cannot share one."""
        tree = Tree()
        tree.add([*prompt, *self.phrase[:-1]])
        at = range(len(prompt), len(prompt) + len(self.phrase) - 1)
        return forward(self.model, tree, list(at)).logits

    def _phrase_scores(self, first: Tensor, rest: Tensor) -> Tensor:
        """log P of each token of the phrase and of the end token behind it, [rows, tokens].

        From the logits before the phrase [rows, vocabulary] and within it [rows, phrase,
        vocabulary].
        """
        logits = torch.cat([first[:, None], rest], 1).log_softmax(-1)
        targets = torch.tensor(self.phrase, device=logits.device).expand(len(logits), -1)
        return logits.gather(-1, targets[..., None])[..., 0].cpu()
