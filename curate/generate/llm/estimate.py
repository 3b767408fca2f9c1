"""What a run will cost, told before it starts."""

from collections.abc import Iterable
from dataclasses import dataclass

from curate.generate.llm.asking import TOKEN_CHARACTERS, Request
from curate.insufficient.made import READER_TOKENS
from curate.insufficient.readers import JUDGE_TOKENS

_AROUND = 80  # tokens of instructions around a passage that is read or judged
_QUESTION = 40  # tokens of a question asked without its passage


@dataclass(frozen=True)
class Prices:
    """Dollars a million tokens."""

    prompt: float = 0.0
    completion: float = 0.0

    def cost(self, prompt: int, completion: int) -> float:
        """Dollars of so many tokens."""
        return (prompt * self.prompt + completion * self.completion) / 1e6


@dataclass
class Estimate:
    """Requests and tokens of a run at the most: as if every question reached the last check."""

    requests: int = 0
    prompt: int = 0
    completion: int = 0

    @property
    def tokens(self) -> int:
        """Both kinds."""
        return self.prompt + self.completion


def of(asked: Iterable[tuple[str, int, Request]]) -> Estimate:
    """The estimate for these requests and the verification of what they give."""
    found = Estimate()
    for reason, count, request in asked:
        texts = sum(len(message["content"]) for message in request.messages)
        prompt = texts // TOKEN_CHARACTERS
        # Each question is read with its passage, then judged with it or asked without it.
        again = prompt + _AROUND if reason else _QUESTION
        last = JUDGE_TOKENS if reason else READER_TOKENS
        found.requests += 1 + 2 * count
        found.prompt += prompt + count * (prompt + _AROUND + again)
        found.completion += request.max_tokens + count * (READER_TOKENS + last)
    return found
