"""Answers with their evidence: one packed forward pass a context, then decoding in step.

The prefix is computed once for all questions about a context. Each question branches off, and
below it hang the abstention phrase (scored as it stands) and the answer (grown token by token,
all branches of a pack in one small forward pass a step). What further signals need is gathered
from there, with the prefix's keys and values at hand.
"""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from abstain.answer import Answer
from abstain.blocks import decoder, entering
from abstain.calibration import Calibration
from abstain.evidence import Evidence
from abstain.generate import Grown, decode, greedy
from abstain.head import SufficiencyHead, load_head
from abstain.mc_dropout import DropoutSamples, Item, McDropout, Trace
from abstain.model import LoadedModel, load_model, window
from abstain.prefix import (
    Tree,
    branch_out,
    common_prefix,
    forward,
    group_by_prefix,
    own_lengths,
    supports_packing,
)
from abstain.probe import load_probe
from abstain.reason import ReasonHead, load_reason_head
from abstain.run import RunFile, read_run_file
from abstain.self_checks import TRUE_QUESTION, draw_samples, draw_samples_alone, true_logits
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, digest

MAX_ROWS = 12
MAX_BRANCH_TOKENS = 2048
HEAD, PROBE = "head", "probe"


class Answerer:
    """A model, its contract, its heads and what calibration knows of them, ready to answer."""

    def __init__(
        self,
        loaded: LoadedModel,
        contract: Contract,
        head: SufficiencyHead | None,
        calibration: Calibration | None = None,
        probe: SufficiencyHead | None = None,
        reason_head: ReasonHead | None = None,
    ) -> None:
        self.loaded = loaded
        self.contract = contract
        self.calibration = calibration
        heads = {HEAD: head, PROBE: probe}
        self.heads = {name: found for name, found in heads.items() if found is not None}
        self.reason_head = reason_head
        self.packing = supports_packing(loaded.model)
        phrase = loaded.tokenizer.encode(contract.abstention_phrase, add_special_tokens=False)
        self._phrase = [*phrase, loaded.end_token_id]
        self._window = window(loaded.model.config)
        self.seconds: dict[str, float] = defaultdict(float)  # spent on each kind of evidence
        self.gather(calibration.evidence if calibration is not None else Evidence())

    @property
    def blocks(self) -> int:
        """How many blocks the model has: what a complete forward pass runs."""
        return int(self.loaded.model.config.get_text_config().num_hidden_layers)

    @property
    def head(self) -> SufficiencyHead | None:
        """The sufficiency head, where the run has one."""
        return self.heads.get(HEAD)

    def gather(self, evidence: Evidence) -> None:
        """Gather this evidence with every answer from now on."""
        self.evidence = evidence
        self._dropout: McDropout | None = None
        if evidence.dropout is not None:
            model, phrase = self.loaded.model, self._phrase
            self._dropout = McDropout(model, self.heads, phrase, evidence.dropout)

    def prompt_tokens(self, row: Row, room: int) -> list[int]:
        """The prompt of one row as tokens, refused where the window has no ``room`` behind it."""
        tokens = self._encode(row.context, row.question, row.history)
        if self._window is not None and len(tokens) + room > self._window:
            raise UserError(
                f"row {row.id or '(unnamed)'}: {len(tokens):,} tokens and {room} for the answer, "
                f"and the model reads at most {self._window:,}; give a shorter context, e.g. the "
                "passage retrieved"
            )
        return tokens

    def _encode(self, context: str, question: str, history: Any = ()) -> list[int]:
        text = self.contract.prompt(self.loaded.tokenizer, context, question, history)
        tokens: list[int] = self.loaded.tokenizer.encode(text, add_special_tokens=False)
        return tokens

    def answer(
        self, rows: Sequence[Row], max_new_tokens: int = 64
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Answers with their rows' numbers, a pack at a time, packs in the order of the rows."""
        room = max(len(self._phrase), max_new_tokens)
        if self.evidence.p_true:  # asks once more, with the answer in the question
            room += len(self.loaded.tokenizer.encode(TRUE_QUESTION))
        prompts = [self.prompt_tokens(row, room) for row in rows]
        contexts = [row.context for row in rows]
        answer_room = len(self._phrase) + max_new_tokens
        lengths = [own + answer_room for own in own_lengths(contexts, [len(p) for p in prompts])]
        max_rows = MAX_ROWS if self.packing else 1
        for pack in group_by_prefix(contexts, lengths, max_rows, MAX_BRANCH_TOKENS):
            answers = self._answer_pack(
                [rows[i] for i in pack], [prompts[i] for i in pack], max_new_tokens
            )
            yield list(zip(pack, answers, strict=True))

    @torch.inference_mode()
    def hidden_states(self, rows: Sequence[Row]) -> Iterator[list[tuple[int, Any]]]:
        """Hidden states [layers + 1, hidden] of the prompts' last tokens, a pack at a time."""
        prompts = [self.prompt_tokens(row, 0) for row in rows]
        contexts = [row.context for row in rows]
        lengths = own_lengths(contexts, [len(prompt) for prompt in prompts])
        layers = range(self.blocks + 1)
        max_rows = MAX_ROWS if self.packing else 1
        for pack in group_by_prefix(contexts, lengths, max_rows, MAX_BRANCH_TOKENS):
            tree, questions = branch_out([prompts[i] for i in pack])
            at = [tree.last(question) for question in questions]
            hidden = forward(self.loaded.model, tree, at, layers).hidden.cpu().numpy()
            yield list(zip(pack, hidden, strict=True))

    @torch.inference_mode()
    def _answer_pack(
        self, rows: list[Row], prompts: list[list[int]], max_new_tokens: int
    ) -> list[Answer]:
        with self._timed("answer"):
            read = self._read(prompts, max_new_tokens)
        names = [digest(row.context, row.question, repr(row.history)) for row in rows]
        texts = [self._text(grown.tokens) for grown in read.grown]
        answers = []
        evidence: list[dict[str, Any]] = [{} for _ in rows]
        if self._dropout is not None:
            with self._timed("dropout"):
                spreads = self._sample(self._dropout, rows, names, read)
                for found, spread in zip(evidence, spreads, strict=True):
                    found["dropout"] = spread
        if self.evidence.p_true:
            with self._timed("p_true"):
                for found, logit in zip(evidence, self._ask_true(rows, texts, read), strict=True):
                    found["true_logit"] = logit
        if self.evidence.samples:
            with self._timed("samples"):
                drawn = self._draw(names, read, max_new_tokens)
                for found, tokens in zip(evidence, drawn, strict=True):
                    found["samples"] = tuple(map(self._text, tokens))
        for number, (text, grown, found) in enumerate(
            zip(texts, read.grown, evidence, strict=True)
        ):
            if self.reason_head is not None:
                at = self._layers().index(self.reason_head.layer)
                found["reason"] = self.reason_head.reasons(read.hidden[number, at][None])[0]
            found |= {f"{name}_logit": logits[number] for name, logits in read.logits.items()}
            answers.append(
                Answer(
                    text,
                    self.contract.is_abstention(text) or not text,
                    tuple(grown.log_p),
                    tuple(grown.entropy),
                    float(read.log_p_phrase[number].sum()),
                    float(read.log_p_phrase[number, 0]),
                    **found,
                )
            )
        return answers

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[kind] += time.perf_counter() - started

    def _read(self, prompts: list[list[int]], max_new_tokens: int) -> "_Read":
        """Read the prompts, score the phrase behind each, generate, and read the heads."""
        from transformers import DynamicCache

        model = self.loaded.model
        tree, questions = branch_out(prompts)
        phrases = []
        if self.packing:
            phrases = [tree.add(self._phrase[:-1], question) for question in questions]
        phrase_at = [tree.indices(phrase) for phrase in phrases]
        last = [tree.last(question) for question in questions]
        inner = [index for at in phrase_at for index in at]
        layers = self._layers()
        cache = DynamicCache(config=model.config)
        dropout = self._dropout
        lowest = dropout.lowest if dropout is not None and dropout.skips else None
        with entering(decoder(model).layers[lowest]) if lowest else _nothing() as entered:
            output = forward(model, tree, [*last, *inner], layers, cache)
            first = output.logits[: len(last)]
            rest = output.logits[len(last) :]
            if not self.packing:
                rest = self._phrase_logits(prompts[0])
            hidden = output.hidden[: len(last)]
            grown = decode(
                model,
                tree,
                questions,
                first,
                cache,
                self.loaded.end_token_id,
                max_new_tokens,
                greedy,
            )
        logits = {
            name: head(hidden[:, [layers.index(layer) for layer in head.layers]]).tolist()
            for name, head in self.heads.items()
        }
        scored = self._phrase_scores(first, rest.view(len(last), len(self._phrase) - 1, -1))
        states = torch.cat(entered) if entered else None
        return _Read(
            prompts, tree, questions, phrase_at, first, hidden, logits, scored, grown, cache, states
        )

    def _layers(self) -> list[int]:
        """Whose hidden states are read."""
        read = {layer for head in self.heads.values() for layer in head.layers}
        return sorted(read | ({self.reason_head.layer} if self.reason_head else set()))

    def _phrase_logits(self, prompt: list[int]) -> Tensor:
        """The phrase scored in a pass of its own, where siblings cannot share one."""
        tree = Tree()
        tree.add([*prompt, *self._phrase[:-1]])
        at = range(len(prompt), len(prompt) + len(self._phrase) - 1)
        return forward(self.loaded.model, tree, list(at)).logits

    def _phrase_scores(self, first: Tensor, rest: Tensor) -> Tensor:
        """log P of each token of the phrase and of the end token behind it, [rows, tokens].

        From the logits before the phrase [rows, vocabulary] and within it [rows, phrase,
        vocabulary].
        """
        logits = torch.cat([first[:, None], rest], 1).log_softmax(-1)
        targets = torch.tensor(self._phrase, device=logits.device).expand(len(logits), -1)
        return logits.gather(-1, targets[..., None])[..., 0].cpu()

    def _sample(
        self, dropout: McDropout, rows: list[Row], names: list[str], read: "_Read"
    ) -> list[DropoutSamples]:
        """MC dropout's samples, on what generating has left."""
        # Where the question begins is a matter of the row alone, not of its neighbours in the pack.
        bare = self._encode(rows[0].context, "?")
        layers = self._layers()
        items = []
        for number, (prompt, grown) in enumerate(zip(read.prompts, read.grown, strict=True)):
            items.append(
                Item(
                    names[number],
                    prompt,
                    common_prefix([prompt, bare]),
                    grown.tokens,
                    [*range(read.root), *read.tree.indices(read.questions[number])],
                    read.tree.indices(grown.branch)[: len(grown.tokens) - 1],
                    read.phrase_at[number] if read.phrase_at else [],
                    dict(zip(layers, read.hidden[number], strict=True)),
                )
            )
        return dropout.sample(items, Trace(read.cache, read.entered))

    def _ask_true(self, rows: list[Row], texts: list[str], read: "_Read") -> list[float]:
        prompts = []
        for row, text in zip(rows, texts, strict=True):
            question = TRUE_QUESTION.format(question=row.question, answer=text)
            prompts.append(self._encode(row.context, question, row.history))
        cache = read.cache if self.packing else None
        shared = read.prompts[0][: read.root]
        return true_logits(self.loaded.model, self.loaded.tokenizer, prompts, cache, shared)

    def _draw(self, names: list[str], read: "_Read", max_new_tokens: int) -> list[list[list[int]]]:
        evidence = self.evidence
        how: dict[str, Any] = {
            "end_token_id": self.loaded.end_token_id,
            "max_new_tokens": max_new_tokens,
            "count": evidence.samples,
            "temperature": evidence.temperature,
            "seed": evidence.seed,
        }
        model = self.loaded.model
        if not self.packing:
            return [draw_samples_alone(model, read.prompts[0], read.first, names[0], **how)]
        return draw_samples(model, read.tree, read.questions, read.first, read.cache, names, **how)

    def _text(self, tokens: list[int]) -> str:
        ended = bool(tokens) and tokens[-1] == self.loaded.end_token_id
        return str(self.loaded.tokenizer.decode(tokens[:-1] if ended else tokens).strip())


@dataclass(frozen=True)
class _Read:
    """What reading and answering a pack leaves behind."""

    prompts: list[list[int]]
    tree: Tree
    questions: list[int]  # each prompt's segment behind the common root
    phrase_at: list[list[int]]  # each phrase's tokens in the tree; empty without packing
    first: Tensor  # [rows, vocabulary], behind the prompts
    hidden: Tensor  # [rows, layers, hidden] of the last prompt tokens
    logits: dict[str, list[float]]  # of each head, [rows]
    log_p_phrase: Tensor  # [rows, tokens of the phrase and the end token]
    grown: list[Grown]
    cache: Any
    entered: Tensor | None  # [tokens, hidden], where MC dropout samples only the blocks above

    @property
    def root(self) -> int:
        """Length of the prompts' common root."""
        return self.tree.last(0) + 1


@contextlib.contextmanager
def _nothing() -> Iterator[list[Tensor]]:
    yield []


def load_answerer(name: str, contract: Contract | None = None) -> Answerer:
    """An answerer for a run's folder, or for an untrained model with a contract (or the default).

    Raises `UserError` for another contract than a run was trained with.
    """
    loaded = load_model(name)
    stored = read_run_file(loaded.run)
    if contract is not None:
        if loaded.run is not None:
            raise UserError(
                f"{name}: a run keeps the prompt and the phrase that it was trained with"
            )
        stored = RunFile(contract)
    head = load_head(loaded.run) if loaded.run is not None else None
    probe = load_probe(loaded.run) if loaded.run is not None else None
    reason_head = load_reason_head(loaded.run) if loaded.run is not None else None
    for module in (head, probe, reason_head):
        if module is not None:
            module.to(loaded.model.device)
    return Answerer(loaded, stored.contract, head, stored.calibration, probe, reason_head)
