"""Answers with their signals: one packed forward pass a context, then greedy decoding in step.

The prefix is computed once for all questions about a context. Each question branches off, and
below it hang the abstention phrase (scored as it stands) and the answer (grown token by token,
all branches of a pack in one small forward pass a step).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from abstain.answer import Answer
from abstain.calibration import Calibration
from abstain.head import SufficiencyHead, load_head
from abstain.model import LoadedModel, load_model, window
from abstain.prefix import (
    Tree,
    branch_out,
    forward,
    group_by_prefix,
    own_lengths,
    supports_packing,
)
from abstain.run import read_run_file
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row

MAX_ROWS = 12
MAX_BRANCH_TOKENS = 2048


class Answerer:
    """A model, its contract, its head and what calibration knows of them, ready to answer."""

    def __init__(
        self,
        loaded: LoadedModel,
        contract: Contract,
        head: SufficiencyHead | None,
        calibration: Calibration | None = None,
    ) -> None:
        self.loaded = loaded
        self.contract = contract
        self.head = head
        self.calibration = calibration
        self.packing = supports_packing(loaded.model)
        phrase = loaded.tokenizer.encode(contract.abstention_phrase, add_special_tokens=False)
        self._phrase = (*phrase, loaded.end_token_id)
        self._window = window(loaded.model.config)

    def prompt_tokens(self, row: Row, room: int) -> list[int]:
        """The prompt of one row as tokens, refused where the window has no ``room`` behind it."""
        text = self.contract.prompt(self.loaded.tokenizer, row.context, row.question, row.history)
        tokens: list[int] = self.loaded.tokenizer.encode(text, add_special_tokens=False)
        if self._window is not None and len(tokens) + room > self._window:
            raise UserError(
                f"row {row.id or '(unnamed)'}: {len(tokens):,} tokens and {room} for the answer, "
                f"and the model reads at most {self._window:,}; give a shorter context, e.g. the "
                "passage retrieved"
            )
        return tokens

    def answer(
        self, rows: Sequence[Row], max_new_tokens: int = 64
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Answers with their rows' numbers, a pack at a time, packs in the order of the rows."""
        longest = max(len(self._phrase), max_new_tokens)
        prompts = [self.prompt_tokens(row, longest) for row in rows]
        contexts = [row.context for row in rows]
        answer_room = len(self._phrase) + max_new_tokens
        lengths = [own + answer_room for own in own_lengths(contexts, [len(p) for p in prompts])]
        max_rows = MAX_ROWS if self.packing else 1
        for pack in group_by_prefix(contexts, lengths, max_rows, MAX_BRANCH_TOKENS):
            answers = self._answer_pack([prompts[i] for i in pack], max_new_tokens)
            yield list(zip(pack, answers, strict=True))

    @torch.inference_mode()
    def _answer_pack(self, prompts: list[list[int]], max_new_tokens: int) -> list[Answer]:
        from transformers import DynamicCache

        tree, questions = branch_out(prompts)
        phrases: list[int] = []
        if self.packing:
            phrases = [tree.add(self._phrase[:-1], question) for question in questions]
        starts = [tree.last(question) for question in questions]
        inner = [
            index
            for phrase in phrases
            for index in range(tree.last(phrase) - len(self._phrase) + 2, tree.last(phrase) + 1)
        ]
        layers = self.head.layers if self.head is not None else ()
        cache = DynamicCache(config=self.loaded.model.config)
        output = forward(self.loaded.model, tree, [*starts, *inner], layers, cache)
        first = output.logits[: len(starts)]
        if self.packing:
            rest = output.logits[len(starts) :].view(len(starts), len(self._phrase) - 1, -1)
            log_p_abstain = self._phrase_score(first, rest)
        else:
            log_p_abstain = self._phrase_score(first, self._phrase_logits(prompts[0]))
        head_logits: list[float | None] = [None] * len(starts)
        if self.head is not None:
            head_logits = list(self.head(output.hidden[: len(starts)]).tolist())
        grown = _decode(
            self.loaded.model,
            tree,
            questions,
            first,
            cache,
            self.loaded.end_token_id,
            max_new_tokens,
        )
        return [
            self._finish(tokens, score, float(p), logit)
            for (tokens, score), p, logit in zip(grown, log_p_abstain, head_logits, strict=True)
        ]

    def _phrase_logits(self, prompt: list[int]) -> Tensor:
        """The phrase scored in a pass of its own, where siblings cannot share one."""
        tree = Tree()
        tree.add([*prompt, *self._phrase[:-1]])
        at = range(len(prompt), len(prompt) + len(self._phrase) - 1)
        return forward(self.loaded.model, tree, list(at)).logits[None]

    def _phrase_score(self, first: Tensor, rest: Tensor) -> Tensor:
        """log P(phrase and end token) of each row.

        From the logits before it [rows, vocabulary] and within it [rows, phrase, vocabulary].
        """
        logits = torch.cat([first[:, None], rest], 1).log_softmax(-1)
        targets = torch.tensor(self._phrase, device=logits.device).expand(len(logits), -1)
        return logits.gather(-1, targets[..., None]).sum((1, 2)).cpu()

    def _finish(
        self, tokens: list[int], score: float, log_p_abstain: float, logit: float | None
    ) -> Answer:
        ended = bool(tokens) and tokens[-1] == self.loaded.end_token_id
        text = self.loaded.tokenizer.decode(tokens[:-1] if ended else tokens).strip()
        abstained = self.contract.is_abstention(text) or not text
        return Answer(text, abstained, score, max(1, len(tokens)), log_p_abstain, logit)


def _decode(
    model: Any,
    tree: Tree,
    questions: Sequence[int],
    first: Tensor,
    cache: Any,
    end_token_id: int,
    max_new_tokens: int,
) -> list[tuple[list[int], float]]:
    """Greedy tokens and their summed log-likelihood for each question, all branches in step."""
    grown: list[list[int]] = [[] for _ in questions]
    scores = [0.0] * len(questions)
    branches = [tree.add([], question) for question in questions]
    active = list(range(len(questions)))
    logits = first
    for _ in range(max_new_tokens):
        best = logits.log_softmax(-1).max(-1)
        tokens, values = best.indices.tolist(), best.values.tolist()
        for row, token, value in zip(active, tokens, values, strict=True):
            grown[row].append(token)
            scores[row] += value
        active = [row for row in active if grown[row][-1] != end_token_id]
        if not active or len(grown[active[0]]) == max_new_tokens:
            break
        for row in active:
            tree.extend(branches[row], grown[row][-1:])
        size = len(tree)
        logits = forward(model, tree, range(size - len(active), size), cache=cache).logits
    return list(zip(grown, scores, strict=True))


def load_answerer(name: str) -> Answerer:
    """An answerer for a run's folder, or for an untrained model with the default contract."""
    loaded = load_model(name)
    head = load_head(loaded.run) if loaded.run is not None else None
    if head is not None:
        head = head.to(loaded.model.device)
    stored = read_run_file(loaded.run)
    return Answerer(loaded, stored.contract, head, stored.calibration)
