"""The contract between model and program: one prompt, one abstention phrase, one place each.

Training, evaluation, serving and export all render through this module, because a model that
is served with another prompt than it was trained with loses most of what it learnt. The context
comes before the question, so that many questions about one context share one computed prefix.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

PHRASES = ("unanswerable", "I need more context to answer this question")
NO_CONTEXT = "(no context given)"


class ChatTokenizer(Protocol):
    """The part of a `transformers` tokenizer that rendering needs."""

    chat_template: Any

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render messages with the model's own markers."""
        ...


def _bare(text: str) -> str:
    return text.strip().strip(".!\"'").casefold()


@dataclass(frozen=True)
class Contract:
    """What the model is told, and what it says when the context does not hold the answer."""

    abstention_phrase: str = PHRASES[0]
    system: str = (
        "Answer the question using only the context, as briefly as possible. "
        "If the context does not contain the answer, reply: {phrase}"
    )

    def messages(
        self, context: str, question: str, history: Sequence[dict[str, str]] = ()
    ) -> list[dict[str, str]]:
        """The chat messages of one question; earlier turns stand between context and question."""
        turns = "".join(f"{turn['role']}: {turn['content']}\n" for turn in history)
        earlier = f"Conversation so far:\n{turns}\n" if turns else ""
        user = f"Context:\n{context.strip() or NO_CONTEXT}\n\n{earlier}Question: {question.strip()}"
        return [
            {"role": "system", "content": self.system.format(phrase=self.abstention_phrase)},
            {"role": "user", "content": user},
        ]

    def prompt(
        self,
        tokenizer: ChatTokenizer,
        context: str,
        question: str,
        history: Sequence[dict[str, str]] = (),
    ) -> str:
        """The exact text that the model continues, up to the place where its answer begins."""
        messages = self.messages(context, question, history)
        if tokenizer.chat_template is None:  # a base model: plain text, with the same parts
            system, user = (message["content"] for message in messages)
            return f"{system}\n\n{user}\nAnswer: "
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def target(self, answers: Sequence[str], sufficient: bool) -> str:
        """What the model should say: the best accepted answer, or the abstention phrase."""
        return answers[0] if sufficient and answers else self.abstention_phrase

    def is_abstention(self, text: str) -> bool:
        """Whether an answer is the abstention phrase, give or take case, stops and spaces."""
        return _bare(text) == _bare(self.abstention_phrase)

    def to_json(self) -> dict[str, str]:
        """The contract as it is stored with a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, str]) -> "Contract":
        """The contract that `to_json` stored."""
        return cls(**value)
