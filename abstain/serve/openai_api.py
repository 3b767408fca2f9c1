"""OpenAI's chat format, as far as a grounded answer has use for it.

The context is what a ``context`` field holds, or else what system, developer and tool messages say;
the question is the last user message, and what was said before it is the history. Settings that
shape sampling are taken and have no effect, since answers are not drawn; what would promise
another kind of reply (several choices, tools, JSON, log-probabilities) is refused.
"""

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from abstain.serve.service import Question, Told
from curate.errors import UserError

_GIVES_CONTEXT = ("system", "developer", "tool", "function")
_PIECE = 24  # characters at a time, where an answer is streamed


class Part(BaseModel):
    """A piece of a message."""

    model_config = ConfigDict(extra="ignore")
    type: Literal["text", "input_text"]
    text: str


class Message(BaseModel):
    """Somebody's turn."""

    model_config = ConfigDict(extra="ignore")
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None

    def told(self) -> str:
        """Its text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(BaseModel):
    """Whether the last piece of a stream tells the tokens."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """``POST /v1/chat/completions``. Sampling settings beyond these are taken without effect."""

    model_config = ConfigDict(extra="allow")
    messages: list[Message] = Field(min_length=1, max_length=1000)
    model: str = ""
    context: str | list[str] | None = None
    document: str = ""
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    logprobs: bool | None = None

    @field_validator("n")
    @classmethod
    def _one(cls, count: int | None) -> int | None:
        if count not in (None, 1):
            raise ValueError("one answer is given, since answers are not drawn; leave n out")
        return count

    @field_validator("tools")
    @classmethod
    def _no_tools(cls, tools: list[Any] | None) -> list[Any] | None:
        if tools:
            raise ValueError("no tool is ever called; the retriever is a matter of the policy")
        return tools

    @field_validator("response_format")
    @classmethod
    def _text(cls, wanted: dict[str, Any] | None) -> dict[str, Any] | None:
        if wanted is not None and wanted.get("type") != "text":
            raise ValueError("answers are text; their decision stands beside them, in 'decision'")
        return wanted

    @field_validator("logprobs")
    @classmethod
    def _no_logprobs(cls, wanted: bool | None) -> bool | None:
        if wanted:
            raise ValueError("log-probabilities are among the signals of the answer's 'decision'")
        return wanted

    def question(self, number: str = "") -> Question:
        """What is asked, about what. Raises `UserError` where nobody asks anything."""
        last = max((n for n, m in enumerate(self.messages) if m.role == "user"), default=-1)
        if last < 0 or not self.messages[last].told().strip():
            raise UserError("messages: no question; the last user message is taken for it")
        if self.context is not None:
            given = [self.context] if isinstance(self.context, str) else self.context
        else:
            given = [one.told() for one in self.messages if one.role in _GIVES_CONTEXT]
        history = [
            {"role": one.role, "content": one.told()}
            for one in self.messages[:last]
            if one.role in ("user", "assistant") and one.told().strip()
        ]
        context = "\n\n".join(filter(str.strip, given))
        text = self.messages[last].told().strip()
        return Question(text, context, history, self.document, number)


def completion(told: Told, model: str) -> dict[str, Any]:
    """The whole reply; ``decision`` stands beside what OpenAI's has."""
    return {
        "id": f"chatcmpl-{told.record['id']}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": told.text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": _usage(told),
        "decision": told.record,
    }


def _usage(told: Told) -> dict[str, int]:
    prompt, completion_ = told.prompt_tokens, told.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_,
        "total_tokens": prompt + completion_,
    }


def pieces(told: Told, model: str, usage: bool) -> Iterator[bytes]:
    """The reply as server-sent events; it was decided before the first of them."""
    head = {
        "id": f"chatcmpl-{told.record['id']}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def event(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _event({**head, "choices": [choice], **more})

    yield event({"role": "assistant", "content": ""})
    for start in range(0, len(told.text), _PIECE):
        yield event({"content": told.text[start : start + _PIECE]})
    yield event({}, "stop", decision=told.record)
    if usage:
        yield _event({**head, "choices": [], "usage": _usage(told)})
    yield b"data: [DONE]\n\n"


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


def failure(message: str, kind: str) -> dict[str, Any]:
    """An error in OpenAI's form."""
    return {"error": {"message": message, "type": kind, "param": None, "code": None}}
