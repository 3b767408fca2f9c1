"""Answers of an OpenAI-compatible server, with the signals that its log-probabilities allow.

What a server does not tell stays None: it scores no phrase that it did not say, its entropies are
over the few tokens that it lists, and nobody sees its hidden states. A context is sent with every
question; a server that caches prefixes reads it once.
"""

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from abstain.answer import Answer
from abstain.calibration import Calibration
from abstain.evidence import Evidence
from abstain.run import policy_hash
from abstain.self_checks import NO, TRUE_QUESTION, YES
from curate.chat import SECONDS, Chat
from curate.contract import Contract
from curate.errors import UserError
from curate.record import Row, digest
from curate.text import storable

if TYPE_CHECKING:
    from abstain.prefix_cache import PrefixCache

log = logging.getLogger(__name__)

TOP = 20  # tokens listed for each place: the most that the interface allows
PARALLEL = 4


class Endpoint:
    """A model behind an address such as ``http://127.0.0.1:8080/v1``."""

    calibration: Calibration | None = None
    prefixes: "PrefixCache | None" = None  # the server's own affair
    run: Path | None = None  # the folder that stands for it, where there is one
    blocks = 1  # unknown; only MC dropout's cost hangs on it, which a server cannot give

    def __init__(
        self, address: str, contract: Contract, model: str = "", seconds: float = SECONDS
    ) -> None:
        """As for `Chat`; nothing is cached, since answers are timed."""
        self.address = address
        self.contract = contract
        self.evidence = Evidence()
        self.seconds: dict[str, float] = defaultdict(float)
        self._chat = Chat(address, model, seconds=seconds)
        self.model = self._chat.model

    def gather(self, evidence: Evidence) -> None:
        """Gather this evidence with every answer from now on.

        Raises `UserError` for what only a model in this process can give.
        """
        if evidence.dropout is not None or evidence.laplace:
            raise UserError(
                f"{self.address}: a server gives neither MC dropout nor Laplace signals"
            )
        self.evidence = evidence

    def possible(self, evidence: Evidence, fitted: bool = True) -> Evidence:
        """As much of this evidence as a server can give; the rest is told in a warning."""
        if evidence.dropout is not None or evidence.laplace:
            log.warning("without MC dropout and Laplace: %s shows no weights", self.address)
        return replace(evidence, dropout=None, laplace=0)

    def check(self, row: Row) -> int:
        """0: how long a prompt is, and whether too long, only the server knows."""
        return 0

    def hash(self) -> str:
        """Names the address and its model; what lies behind them may change unseen."""
        if self.run is not None and self.calibration is not None:
            return policy_hash(self.run, self.contract, self.calibration)
        return digest(self.address, self.model, repr(self.contract))

    def answer(
        self, rows: Sequence[Row], max_new_tokens: int = 64, early: bool = False
    ) -> Iterator[list[tuple[int, Answer]]]:
        """Answers with their rows' numbers, some requests at a time, in the order of the rows.

        A server has no sufficiency head: ``early`` changes nothing.
        """
        with ThreadPoolExecutor(PARALLEL) as pool:
            answers = pool.map(lambda row: self._answer(row, max_new_tokens), rows)
            for number, answer in enumerate(answers):
                yield [(number, answer)]

    def _answer(self, row: Row, max_new_tokens: int) -> Answer:
        messages = self.contract.messages(row.context, row.question, row.history)
        said = self._ask("answer", messages, max_new_tokens)[0]
        text = storable(said.message.content or "").strip()
        places = (said.logprobs.content if said.logprobs is not None else None) or []
        if text and not places:
            raise UserError(
                f"{self.address}: gives no log-probabilities, and confidence is made of them; "
                "start the server with them, or use another one"
            )
        abstained = self.contract.is_abstention(text) or not text
        samples = None
        if self.evidence.samples:
            drawn = self._draw(messages, max_new_tokens)
            samples = tuple((choice.message.content or "").strip() for choice in drawn)
        true_logit = self._true_logit(row, text) if self.evidence.p_true else None
        return Answer(
            text,
            abstained,
            tuple(place.logprob for place in places) or (0.0,),
            tuple(_entropy(place) for place in places) or (0.0,),
            # The whole phrase is scored only where it was said: one scale for all rows.
            log_p_abstain_first=(
                _first_log_p(places[0], self.contract.abstention_phrase) if places else 0.0
            ),
            true_logit=true_logit,
            samples=samples,
        )

    def _draw(self, messages: Any, max_new_tokens: int) -> list[Any]:
        """Samples, as many to a request as the server gives: some ignore ``n``."""
        choices: list[Any] = []
        evidence = self.evidence
        while len(choices) < evidence.samples:
            more = self._ask(
                "samples",
                messages,
                max_new_tokens,
                n=evidence.samples - len(choices),
                temperature=evidence.temperature,
                seed=evidence.seed + len(choices),
            )
            if not more:
                raise UserError(f"{self.address}: gives no answer to sample")
            choices += more
        return choices[: evidence.samples]

    def _true_logit(self, row: Row, text: str) -> float:
        question = TRUE_QUESTION.format(question=row.question, answer=text)
        messages = self.contract.messages(row.context, question, row.history)
        logprobs = self._ask("p_true", messages, 1)[0].logprobs
        if logprobs is None or not logprobs.content:
            return 0.0  # it ended at once: neither yes nor no
        place = logprobs.content[0]
        listed = {top.token: math.exp(top.logprob) for top in place.top_logprobs}
        # What is not listed is less likely than everything that is.
        least = min(listed.values(), default=1e-9)
        yes, no = (sum(listed.get(word, 0.0) for word in words) for words in (YES, NO))
        return math.log(max(yes, least)) - math.log(max(no, least))

    def _ask(self, kind: str, messages: Any, tokens: int, **how: Any) -> list[Any]:
        started = time.perf_counter()
        settings: dict[str, Any] = {"temperature": 0.0, "seed": self.evidence.seed, **how}
        if kind != "samples":
            settings |= {"logprobs": True, "top_logprobs": TOP}
        choices = self._chat.complete(messages, tokens, **settings)
        # Requests run side by side, so that a kind's seconds are shared among them.
        self.seconds[kind] += (time.perf_counter() - started) / PARALLEL
        return choices


def _entropy(place: Any) -> float:
    """Entropy of the listed tokens, what is not listed taken for one further token."""
    listed = [math.exp(top.logprob) for top in place.top_logprobs]
    rest = 1 - sum(listed)
    return -sum(p * math.log(p) for p in [*listed, rest] if p > 0)


def _first_log_p(place: Any, phrase: str) -> float:
    """log P of the phrase's beginning at the first place; the least listed where it is not listed.

    A listed token counts where the phrase begins with it: servers name tokens by their text.
    """
    starts = [
        top.logprob
        for top in place.top_logprobs
        if top.token.strip() and phrase.casefold().startswith(top.token.strip().casefold())
    ]
    if starts:
        return min(0.0, math.log(sum(map(math.exp, starts))))
    return float(min((top.logprob for top in place.top_logprobs), default=place.logprob))
