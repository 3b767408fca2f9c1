"""Answers with their evidence: one packed forward pass a context, then decoding in step.

The prefix is computed once for all questions about a context. Each question branches off, and
below it hang the abstention phrase (scored as it stands) and the answer (grown token by token,
all branches of a pack in one small forward pass a step). What further signals need is gathered
from there, with the prefix's keys and values at hand. In service prefixes are kept, and questions
on several contexts grow side by side, since reading all weights is what a small pass costs.
"""

import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from abstain import virtual
from abstain.answer import Answer
from abstain.calibration import Calibration
from abstain.evidence import Evidence
from abstain.head import SufficiencyHead, load_head
from abstain.laplace import Gradients, Laplace, load_laplace
from abstain.mc_dropout import Item, McDropout, Trace
from abstain.model import LoadedModel, load_model, window
from abstain.prefix import branch_out, common_prefix, forward, group_by_prefix, own_lengths
from abstain.prefix_cache import Prefix, PrefixCache
from abstain.probe import load_probe
from abstain.reading import Read, Reader
from abstain.reason import ReasonHead, load_reason_head
from abstain.run import RunFile, policy_hash, read_run_file, weights_hash
from abstain.self_checks import TRUE_QUESTION, draw_samples, draw_samples_alone, true_logits
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, digest

log = logging.getLogger(__name__)

MAX_ROWS = 12
MAX_BRANCH_TOKENS = 2048
MAX_TREE_TOKENS = 4096  # of several contexts that are answered side by side
MAX_NEW_TOKENS = 64
HEAD, PROBE = "head", "probe"


class Answerer:
    """A model, its contract, its heads and what calibration knows of them, ready to answer."""

    def __init__(
        self,
        loaded: LoadedModel,
        contract: Contract,
        head: SufficiencyHead | None,
        calibration: Calibration | None = None,
    ) -> None:
        self.loaded = loaded
        self.contract = contract
        self.calibration = calibration
        self.heads = {HEAD: head} if head is not None else {}
        # What a calibration may add: a probe among the heads, and these two.
        self.reason_head: ReasonHead | None = None
        self.laplace: Laplace | None = None
        self.reader = Reader(loaded, contract)
        self.prefixes: PrefixCache | None = None  # of contexts to come again, where there are any
        bound = window(loaded.model.config)
        self._window = None if bound is None else bound - virtual.count(loaded.model)
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
            model, phrase = self.loaded.model, self.reader.phrase
            self._dropout = McDropout(model, self.heads, phrase, evidence.dropout)
        if evidence.laplace and self.laplace is None:
            raise UserError(
                "the run has no Laplace approximation; make one with "
                "`abstain calibrate … --signals free,laplace_std`"
            )

    def possible(self, evidence: Evidence, fitted: bool = True) -> Evidence:
        """As much of this evidence as the model can give; what it cannot is told in a warning.

        ``fitted``: a Laplace approximation must be there already, not only possible.
        """
        if evidence.dropout is not None:
            try:
                McDropout(self.loaded.model, self.heads, self.reader.phrase, evidence.dropout)
            except UserError as error:
                log.warning("without MC dropout: %s", error)
                evidence = replace(evidence, dropout=None)
        if evidence.laplace:
            try:
                self.gradients(evidence.laplace)
                if fitted and self.laplace is None:
                    raise UserError("none was fitted; calibrate with --signals all")
            except UserError as error:
                log.warning("without a Laplace approximation: %s", error)
                evidence = replace(evidence, laplace=0)
        return evidence

    def gradients(self, blocks: int) -> Gradients:
        """What a Laplace approximation of the highest blocks is made of."""
        return Gradients(self.loaded.model, self.reader.phrase, blocks)

    def traces(self, rows: Sequence[Row], gradients: Gradients) -> Iterator[tuple[Item, Trace]]:
        """Prompts read and left open for ``gradients``, in the order of packs."""
        room = len(self.reader.phrase)
        prompts = [self.prompt_tokens(row, room) for row in rows]
        for pack in self._packs(rows, prompts, room):
            read = self.reader.read([prompts[i] for i in pack], 0, (), [gradients.lowest])
            for item in self._items([rows[i] for i in pack], read):
                yield item, read.trace

    def _packs(
        self, rows: Sequence[Row], prompts: Sequence[Sequence[int]], room: int
    ) -> list[list[int]]:
        contexts = [row.context for row in rows]
        own = own_lengths(contexts, [len(prompt) for prompt in prompts])
        max_rows = MAX_ROWS if self.reader.packing else 1
        return group_by_prefix(contexts, [n + room for n in own], max_rows, MAX_BRANCH_TOKENS)

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

    def _room(self, max_new_tokens: int) -> int:
        """Tokens that must fit in behind a prompt."""
        room = max(len(self.reader.phrase), max_new_tokens)
        if self.evidence.p_true:  # asks once more, with the answer in the question
            room += len(self.loaded.tokenizer.encode(TRUE_QUESTION))
        return room

    def check(self, row: Row) -> int:
        """The tokens of a row's prompt; `UserError` where it leaves an answer no room."""
        return len(self.prompt_tokens(row, self._room(MAX_NEW_TOKENS)))

    def hash(self) -> str:
        """Names the model with its prompt and its calibration: another one answers otherwise."""
        run, calibration = self.loaded.run, self.calibration
        if run is not None and calibration is not None:
            return policy_hash(run, self.contract, calibration)
        return digest(self.loaded.base, repr(self.contract), weights_hash(run) if run else "")

    def answer(
        self, rows: Sequence[Row], max_new_tokens: int = MAX_NEW_TOKENS, early: bool = False
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Answers with their rows' numbers, a pack at a time, packs in the order of the rows.

        ``early``: what the policy declines by the sufficiency head alone is not generated.
        """
        prompts = [self.prompt_tokens(row, self._room(max_new_tokens)) for row in rows]
        packs = self._packs(rows, prompts, len(self.reader.phrase) + max_new_tokens)
        for pack in self._side_by_side(packs, prompts):
            answers = self._answer_pack(
                [rows[i] for i in pack], [prompts[i] for i in pack], max_new_tokens, early
            )
            yield list(zip(pack, answers, strict=True))

    def _side_by_side(
        self, packs: list[list[int]], prompts: Sequence[Sequence[int]]
    ) -> Iterator[list[int]]:
        """Packs joined as far as memory allows, where prefixes are computed apart."""
        if self.prefixes is None or not self.reader.packing:
            yield from packs
            return
        joined: list[int] = []
        tokens = 0
        for pack in packs:
            lengths = [len(prompts[i]) for i in pack]
            size = sum(lengths) - (len(pack) - 1) * min(lengths)
            if joined and (tokens + size > MAX_TREE_TOKENS or len(joined + pack) > MAX_ROWS):
                yield joined
                joined, tokens = [], 0
            joined += pack
            tokens += size
        if joined:
            yield joined

    @torch.inference_mode()
    def hidden_states(self, rows: Sequence[Row]) -> Iterator[list[tuple[int, Any]]]:
        """Hidden states [layers + 1, hidden] of the prompts' last tokens, a pack at a time."""
        prompts = [self.prompt_tokens(row, 0) for row in rows]
        layers = range(self.blocks + 1)
        for pack in self._packs(rows, prompts, 0):
            tree, questions = branch_out([prompts[i] for i in pack])
            at = [tree.last(question) for question in questions]
            hidden = forward(self.loaded.model, tree, at, layers).hidden.cpu().numpy()
            yield list(zip(pack, hidden, strict=True))

    @torch.inference_mode()
    def _answer_pack(
        self, rows: list[Row], prompts: list[list[int]], max_new_tokens: int, early: bool
    ) -> list[Answer]:
        with self._timed("answer"):
            keep = self._early() if early else None
            layers, recorded = self._layers(), self._recorded()
            known, of = self._known(rows, prompts, recorded)
            read = self.reader.read(prompts, max_new_tokens, layers, recorded, keep, known, of)
            logits = self._logits(read.hidden)
        texts = [self._text(grown.tokens) for grown in read.grown]
        kept = [number for number, grown in enumerate(read.grown) if grown.tokens]
        evidence = self._evidence(rows, texts, read, kept, max_new_tokens)
        return [
            Answer(
                texts[number] if number in evidence else self.contract.abstention_phrase,
                self.contract.is_abstention(texts[number]) or not texts[number],
                tuple(grown.log_p),
                tuple(grown.entropy),
                float(read.log_p_phrase[number].sum()),
                float(read.log_p_phrase[number, 0]),
                reason=self._reason(read, number),
                skipped=number not in evidence,
                head_logit=logits[HEAD][number] if HEAD in logits else None,
                probe_logit=logits[PROBE][number] if PROBE in logits else None,
                **evidence.get(number, {}),
            )
            for number, grown in enumerate(read.grown)
        ]

    def _known(
        self, rows: Sequence[Row], prompts: list[list[int]], recorded: list[int]
    ) -> tuple[list[Prefix], list[int]]:
        """The prefixes that the prompts begin with, each once, and which of them is whose."""
        known: dict[tuple[int, ...], Prefix] = {}
        begins = []
        if self.prefixes is not None and self.reader.packing:
            by_context: dict[str, list[list[int]]] = defaultdict(list)
            for row, prompt in zip(rows, prompts, strict=True):
                by_context[row.context].append(prompt)
            roots = {text: self._root(text, some) for text, some in by_context.items()}
            for row in rows:
                root = roots[row.context]
                if root not in known:
                    found = self.prefixes.get(root, recorded)
                    if found is None:
                        found = self.reader.prefix(root, recorded)
                        self.prefixes.put(found)
                    known[root] = found
                begins.append(root)
        places = {root: number for number, root in enumerate(known)}
        return list(known.values()), [places[root] for root in begins]

    def _root(self, context: str, prompts: list[list[int]]) -> tuple[int, ...]:
        """The tokens that prompts on this context always begin with.

        They end where different questions and histories part, so that any later prompt has them
        too; where a question's first letters have melted into the context's end, these prompts'.
        """
        later = [{"role": "user", "content": "A"}]
        apart = [self._encode(context, "?"), self._encode(context, "A")]
        apart.append(self._encode(context, "?", later))
        root = tuple(apart[0][: common_prefix(apart)])
        if any(tuple(prompt[: len(root)]) != root for prompt in prompts):
            root = tuple(prompts[0][: common_prefix(prompts)])
        return root

    def _logits(self, hidden: dict[int, Tensor]) -> dict[str, list[float]]:
        """Each head's logits from hidden states [rows, hidden] by layer."""
        return {
            name: head(torch.stack([hidden[layer] for layer in head.layers], 1)).tolist()
            for name, head in self.heads.items()
        }

    def _early(self) -> Callable[[dict[int, Tensor]], list[bool]] | None:
        """Tells which rows the policy might let pass, as far as the sufficiency head can tell."""
        bound = self.calibration.decline_below if self.calibration is not None else None
        if bound is None or HEAD not in self.heads:
            return None
        return lambda hidden: [logit >= bound for logit in self._logits(hidden)[HEAD]]

    def _reason(self, read: Read, number: int) -> str | None:
        """Why the context would fall short; None without a reason head."""
        if self.reason_head is None:
            return None
        states = read.hidden[self.reason_head.layer][number]
        return self.reason_head.reasons(states[None])[0]

    def _evidence(
        self, rows: list[Row], texts: list[str], read: Read, kept: list[int], max_new_tokens: int
    ) -> dict[int, dict[str, Any]]:
        """What is gathered further for the rows that were answered, by their numbers."""
        evidence: dict[int, dict[str, Any]] = {number: {} for number in kept}
        items = self._items(rows, read) if self._dropout or self.evidence.laplace else []
        if self._dropout is not None and kept:
            with self._timed("dropout"):
                spreads = self._dropout.sample([items[number] for number in kept], read.trace)
                for number, spread in zip(kept, spreads, strict=True):
                    evidence[number]["dropout"] = spread
        if self.evidence.laplace and self.laplace is not None:
            with self._timed("laplace"):
                for number in kept:
                    evidence[number]["laplace"] = self.laplace.score(items[number], read.trace)
        if self.evidence.p_true and kept:
            with self._timed("p_true"):
                for number, logit in zip(
                    kept, self._ask_true(rows, texts, read, kept), strict=True
                ):
                    evidence[number]["true_logit"] = logit
        if self.evidence.samples and kept:
            with self._timed("samples"):
                drawn = self._draw(rows, read, kept, max_new_tokens)
                for number, tokens in zip(kept, drawn, strict=True):
                    evidence[number]["samples"] = tuple(map(self._text, tokens))
        return evidence

    @contextlib.contextmanager
    def _timed(self, kind: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[kind] += time.perf_counter() - started

    def _items(self, rows: Sequence[Row], read: Read) -> list[Item]:
        bare = {row.context: self._encode(row.context, "?") for row in rows}
        return read.items([_name(row) for row in rows], [bare[row.context] for row in rows])

    def _recorded(self) -> list[int]:
        """Numbers of the blocks of which it is kept what enters them."""
        dropout = self._dropout
        found = {dropout.lowest} if dropout is not None and dropout.skips else set()
        if self.evidence.laplace and self.laplace is not None:
            found.add(self.laplace.gradients.lowest)
        return sorted(found)

    def _layers(self) -> list[int]:
        """Whose hidden states are read."""
        read = {layer for head in self.heads.values() for layer in head.layers}
        return sorted(read | ({self.reason_head.layer} if self.reason_head else set()))

    def _ask_true(
        self, rows: list[Row], texts: list[str], read: Read, kept: list[int]
    ) -> list[float]:
        groups: dict[str, list[int]] = defaultdict(list)
        for number in kept:
            groups[rows[number].context].append(number)
        logits: dict[int, float] = {}
        for context, numbers in groups.items():
            prompts = []
            for number in numbers:
                row = rows[number]
                question = TRUE_QUESTION.format(question=row.question, answer=texts[number])
                prompts.append(self._encode(context, question, row.history))
            model, tokenizer = self.loaded.model, self.loaded.tokenizer
            at = read.root_at(numbers[0])
            shared = [read.tree.tokens[index] for index in at]
            cache = read.trace.cache if self.reader.packing else None
            found = true_logits(model, tokenizer, prompts, cache, shared, at)
            logits |= dict(zip(numbers, found, strict=True))
        return [logits[number] for number in kept]

    def _draw(
        self, rows: list[Row], read: Read, kept: list[int], max_new_tokens: int
    ) -> list[list[list[int]]]:
        evidence = self.evidence
        how: dict[str, Any] = {
            "end_token_id": self.loaded.end_token_id,
            "max_new_tokens": max_new_tokens,
            "count": evidence.samples,
            "temperature": evidence.temperature,
            "seed": evidence.seed,
        }
        model, names = self.loaded.model, [_name(rows[number]) for number in kept]
        if not self.reader.packing:
            return [draw_samples_alone(model, read.prompts[0], read.first, names[0], **how)]
        questions = [read.questions[number] for number in kept]
        cache = read.trace.cache
        return draw_samples(model, read.tree, questions, read.first[kept], cache, names, **how)

    def _text(self, tokens: list[int]) -> str:
        ended = bool(tokens) and tokens[-1] == self.loaded.end_token_id
        return str(self.loaded.tokenizer.decode(tokens[:-1] if ended else tokens).strip())


def _name(row: Row) -> str:
    """What keys the random draws of a row: what it says, wherever it stands."""
    return digest(row.context, row.question, repr(row.history))


def load_answerer(name: str, contract: Contract | None = None, calibrated: bool = True) -> Answerer:
    """An answerer for a run's folder, or for an untrained model with a contract (or the default).

    ``calibrated``: with what `abstain calibrate` has left, where it has. Raises `UserError` for
    another contract than a run was trained with.
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
    if head is not None:
        head.to(loaded.model.device)
    calibration = stored.calibration if calibrated else None
    answerer = Answerer(loaded, stored.contract, head)
    if loaded.run is not None and calibration is not None:
        _load_calibration(answerer, loaded.run, calibration)
    return answerer


def _load_calibration(answerer: Answerer, run: Path, calibration: Calibration) -> None:
    """What `abstain calibrate` has fitted, and the evidence that it needs."""
    model = answerer.loaded.model
    probe, answerer.reason_head = load_probe(run), load_reason_head(run)
    if probe is not None:
        answerer.heads[PROBE] = probe.to(model.device)
    if answerer.reason_head is not None:
        answerer.reason_head.to(model.device)
    answerer.laplace = load_laplace(run, model, answerer.reader.phrase)
    answerer.calibration = calibration
    answerer.gather(calibration.evidence)
