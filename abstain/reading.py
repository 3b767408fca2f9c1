"""Reading a pack of prompts: one forward pass, the phrase scored behind each, answers generated.

What that leaves (a tree of tokens, keys and values, hidden states) is what all further evidence is
gathered from.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from abstain.blocks import decoder, entering
from abstain.generate import Grown, decode, greedy
from abstain.mc_dropout import Item, Trace
from abstain.model import LoadedModel
from abstain.prefix import Tree, branch_out, common_prefix, forward, supports_packing
from abstain.prefix_cache import Prefix
from curate.contract import Contract


@dataclass(frozen=True)
class Read:
    """What reading and answering a pack leaves behind."""

    prompts: list[list[int]]
    tree: Tree
    questions: list[int]  # each prompt's segment behind the common root
    phrase_at: list[list[int]]  # each phrase's tokens in the tree; empty without packing
    first: Tensor  # [rows, vocabulary], behind the prompts
    hidden: dict[int, Tensor]  # [rows, hidden] of the last prompt tokens, by layer
    log_p_phrase: Tensor  # [rows, tokens of the phrase and the end token]
    grown: list[Grown]
    trace: Trace

    @property
    def root(self) -> int:
        """Length of the prompts' common root."""
        return self.tree.last(0) + 1

    def items(self, names: Sequence[str], bare: Sequence[int]) -> list[Item]:
        """Each answer, and where reading and generating have left its tokens.

        ``names`` key their random draws. ``bare`` is a prompt with the same context and another
        question: where the question begins is a matter of a row alone, not of its neighbours.
        """
        return [
            Item(
                name,
                prompt,
                common_prefix([prompt, bare]),
                grown.tokens,
                [*range(self.root), *self.tree.indices(question)],
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
    def read(
        self,
        prompts: list[list[int]],
        max_new_tokens: int,
        layers: Sequence[int],
        recorded: Sequence[int] = (),
        keep: Callable[[dict[int, Tensor]], list[bool]] | None = None,
        root: int | None = None,
        known: Prefix | None = None,
    ) -> Read:
        """Read, score, generate; keep hidden states of ``layers``, and what enters some blocks.

        ``keep`` tells from these states which prompts are worth an answer; the others get none.
        ``root`` is how many first tokens the prompts are to share, if not as many as they can;
        ``known`` is what was computed of these before, and is not computed again.
        """
        from transformers import DynamicCache

        tree, questions = branch_out(prompts, root)
        phrases: list[int] = []
        if self.packing:
            phrases = [tree.add(self.phrase[:-1], question) for question in questions]
        phrase_at = [tree.indices(phrase) for phrase in phrases]
        last = [tree.last(question) for question in questions]
        inner = [index for at in phrase_at for index in at]
        config = self.model.config
        cache = DynamicCache(config=config) if known is None else known.cache(config)
        with contextlib.ExitStack() as recording:
            entered = {
                number: recording.enter_context(entering(decoder(self.model).layers[number]))
                for number in recorded
            }
            output = forward(self.model, tree, [*last, *inner], layers, cache)
            first, rest = output.logits[: len(last)], output.logits[len(last) :]
            states = output.hidden[: len(last)]
            hidden = {layer: states[:, number] for number, layer in enumerate(layers)}
            kept = [True] * len(last) if keep is None else keep(hidden)
            grown = self._generate(tree, questions, first, cache, max_new_tokens, kept)
        if not self.packing:
            rest = self._phrase_logits(prompts[0])
        before = {} if known is None else {number: [known.entering[number]] for number in recorded}
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
                {n: torch.cat([*before.get(n, []), *states]) for n, states in entered.items()},
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
