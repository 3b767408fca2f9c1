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


def told(history: Sequence[dict[str, str]]) -> str:
    """Earlier turns, a line each; empty where there were none."""
    return "".join(f"{turn['role']}: {turn['content']}\n" for turn in history)


def _user(context: str, question: str, history: Sequence[dict[str, str]] = ()) -> str:
    turns = told(history)
    earlier = f"Conversation so far:\n{turns}\n" if turns else ""
    return f"Context:\n{context.strip() or NO_CONTEXT}\n\n{earlier}Question: {question.strip()}"


@dataclass(frozen=True)
class Shot:
    """One worked example of a few-shot prompt; its answer may be the abstention phrase."""

    context: str
    question: str
    answer: str


@dataclass(frozen=True)
class Contract:
    """What the model is told, and what it says when the context does not hold the answer."""

    abstention_phrase: str = PHRASES[0]
    system: str = (
        "Answer the question using only the context, as briefly as possible. "
        "If the context does not contain the answer, reply: {phrase}"
    )

    shots: tuple[Shot, ...] = ()  # worked examples, for models that were not fine-tuned

    def messages(
        self, context: str, question: str, history: Sequence[dict[str, str]] = ()
    ) -> list[dict[str, str]]:
        """The chat messages of one question; earlier turns stand between context and question."""
        system = self.system.format(phrase=self.abstention_phrase)
        messages = [{"role": "system", "content": system}]
        for shot in self.shots:
            messages.append({"role": "user", "content": _user(shot.context, shot.question)})
            messages.append({"role": "assistant", "content": shot.answer})
        return [*messages, {"role": "user", "content": _user(context, question, history)}]

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
            system, *turns = (message["content"] for message in messages)
            shots = "".join(
                f"{user}\nAnswer: {answer}\n\n"
                for user, answer in zip(turns[:-1:2], turns[1::2], strict=True)
            )
            return f"{system}\n\n{shots}{turns[-1]}\nAnswer: "
        return str(
            tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        )

    def context_first(self, tokenizer: ChatTokenizer) -> bool:
        """Whether prompts on one context begin alike up to its end.

        A chat template may turn the parts round; then questions share nothing worth sharing.
        """
        context = "The quick brown fox."
        one, other = (self.prompt(tokenizer, context, question) for question in ("Aa", "Bb"))
        begin = one.find(context)
        return begin >= 0 and one[: begin + len(context)] == other[: begin + len(context)]

    def target(self, answers: Sequence[str], sufficient: bool) -> str:
        """What the model should say: the best accepted answer, or the abstention phrase."""
        return answers[0] if sufficient and answers else self.abstention_phrase

    def is_abstention(self, text: str) -> bool:
        """Whether an answer is the abstention phrase, give or take case, stops and spaces."""
        return _bare(text) == _bare(self.abstention_phrase)

    def to_json(self) -> dict[str, Any]:
        """The contract as it is stored with a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Contract":
        """The contract that `to_json` stored."""
        shots = tuple(Shot(**shot) for shot in value.get("shots", ()))
        return cls(value["abstention_phrase"], value["system"], shots)
