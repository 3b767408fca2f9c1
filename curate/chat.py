"""A language model behind any OpenAI-compatible address; what was asked once is not paid twice."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from curate.errors import UserError
from curate.files import exists, read_json, write_json

# What a server answers that has no model to name: the interface wants some name all the same.
_ANY = "default"
SECONDS = 300.0  # that a request may take
Message = dict[str, str]


class Chat:
    """A model behind an address such as ``http://127.0.0.1:8080/v1``."""

    def __init__(
        self, address: str, model: str = "", cache: Path | None = None, seconds: float = SECONDS
    ) -> None:
        """Without a ``model``, the first that the server lists; answers are kept in ``cache``.

        A request may take ``seconds``; with fewer than the default it is not tried again. The key
        is read from the environment (``OPENAI_API_KEY``). Raises `UserError` where the server
        cannot be reached.
        """
        import openai

        self.address = address
        self._client = openai.OpenAI(
            base_url=address,
            api_key=api_key(),
            timeout=seconds,
            max_retries=3 if seconds >= SECONDS else 0,  # who has no time does not ask twice
        )
        self.model = model or self._first_model()
        self._cache = cache

    def _first_model(self) -> str:
        listed = self._call(self._client.models.list).data
        return str(listed[0].id) if listed else _ANY

    def complete(self, messages: Sequence[Message], max_tokens: int, **how: Any) -> list[Any]:
        """The server's choices, with whatever else was asked of it; nothing is kept."""
        found = self._call(
            self._client.chat.completions.create,
            model=self.model,
            messages=messages,
            max_tokens=max_tokens,
            **how,
        )
        return list(found.choices)

    def ask(self, messages: Sequence[Message], max_tokens: int = 512, seed: int = 13) -> str:
        """The likeliest answer's text, from the cache where the same was asked before."""
        request = {
            "address": without_password(self.address),
            "model": self.model,
            "messages": list(messages),
            "max_tokens": max_tokens,
            "seed": seed,
        }
        name = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        path = self._cache / name[:2] / f"{name}.json" if self._cache is not None else None
        if path is not None and exists(path):
            return str(read_json(path)["answer"])
        choices = self.complete(messages, max_tokens, temperature=0.0, seed=seed)
        if not choices:
            raise UserError(f"{self.address}: gives no answer")
        answer = (choices[0].message.content or "").strip()
        if path is not None and answer:  # the request may hold what is nobody else's business
            write_json(path, {"answer": answer})
        return answer

    def _call(self, method: Any, **arguments: Any) -> Any:
        import openai

        try:
            return method(**arguments)
        except openai.APIStatusError as error:
            raise UserError(f"{self.address}: {error.status_code}: {error.message}") from error
        except openai.APIConnectionError as error:
            raise UserError(
                f"{self.address}: cannot be reached ({error}); is the server running, and does the "
                "address end in /v1?"
            ) from error


def api_key() -> str:
    """The key that a server may want, from the environment; local ones take any."""
    return os.environ.get("OPENAI_API_KEY", "none")


def without_password(address: str) -> str:
    """An address as it may be written down: without what stands before its @."""
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def default_cache() -> Path:
    """Where answers are kept for good: the user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("grounded-abstain")) / "answers"
