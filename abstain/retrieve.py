"""Retrievers: more context for a question, from a folder of documents or from any HTTP address."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from abstain.policy import Bm25Retriever, HttpRetriever
from abstain.router import Found
from curate.errors import UserError, os_error
from curate.files import read_text
from curate.record import Passage, digest
from curate.text import storable, words

_LONGEST = 1_000  # characters of a passage that is cut from plain text
_SUFFIXES = (".txt", ".md", ".html", ".htm")


class RetrieverError(Exception):
    """Nothing could be retrieved; the message says why."""


class Retriever(Protocol):
    """What finds passages for a question."""

    @property
    def state(self) -> str:
        """Names the documents as they are now: a guarantee covers one state."""
        ...

    def find(self, question: str, context: str) -> Found:
        """Passages, best first. Raises `RetrieverError` where it cannot."""
        ...


def make(settings: Bm25Retriever | HttpRetriever | None) -> Retriever | None:
    """The retriever that a policy names; reads and indexes a folder's documents."""
    if settings is None:
        return None
    return Bm25(settings) if isinstance(settings, Bm25Retriever) else Http(settings)


class Bm25:
    """Okapi BM25 (Robertson and Zaragoza 2009) over the passages of a folder, in memory."""

    def __init__(self, settings: Bm25Retriever) -> None:
        """Raises `UserError` for a folder without documents."""
        import bm25s

        logging.getLogger("bm25s").setLevel(logging.WARNING)
        found = list(_passages(settings.folder))
        if not found:
            raise UserError(
                f"{settings.folder}: no text in this folder; a retriever needs documents that end "
                f"in {', '.join(_SUFFIXES)}"
            )
        self._texts = [passage.context for passage in found]
        self._sources = [passage.source for passage in found]
        self._count = min(settings.passages, len(found))
        self._index: Any = bm25s.BM25(method="lucene")
        self._index.index([words(text) for text in self._texts], show_progress=False)
        self.state = digest(*self._texts)

    def find(self, question: str, context: str) -> Found:
        """Passages that share words with the question, best first."""
        terms = words(question)
        if not terms:
            return Found((), ())
        numbers, scores = self._index.retrieve([terms], k=self._count, show_progress=False)
        hits = [int(n) for n, score in zip(numbers[0], scores[0], strict=True) if score > 0]
        return Found(
            tuple(self._texts[hit] for hit in hits), tuple(self._sources[hit] for hit in hits)
        )


def _passages(folder: Path) -> Iterator[Passage]:
    from curate.web import page

    if not folder.is_dir():
        raise UserError(f"{folder}: not a folder; a retriever needs one with documents")
    for file in sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES):
        name = file.relative_to(folder).as_posix()
        if file.suffix.lower() in (".txt", ".md"):
            yield from (Passage(text, source=name) for text in _pieces(read_text(file)))
            continue
        try:
            html = page.decode(file.read_bytes())
        except OSError as error:
            raise os_error("read", file, error) from error
        found = page.read(html, name, name, name, "")
        yield from (Passage(passage.context, source=name) for passage in found.passages)


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs, as many together as are not too long."""
    piece = ""
    for paragraph in filter(None, map(str.strip, text.split("\n\n"))):
        if piece and len(piece) + len(paragraph) > _LONGEST:
            yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
    if piece:
        yield piece


class Http:
    """Passages from an address; it is sent the question, the context so far, and how many."""

    def __init__(self, settings: HttpRetriever) -> None:
        """Nothing is asked before the first question."""
        import httpx

        self._settings = settings
        self._client = httpx.Client(timeout=settings.seconds)
        self.state = digest(settings.url, settings.version)

    def find(self, question: str, context: str) -> Found:
        """What the address answers; anything but a list of texts is refused."""
        import httpx

        wanted = {"question": question, "context": context, "k": self._settings.passages}
        try:
            answer = self._client.post(self._settings.url, json=wanted).raise_for_status()
            passages = answer.json()["passages"]
        except httpx.HTTPError as error:
            raise RetrieverError(
                f"{self._settings.url}: {type(error).__name__}: {error}"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RetrieverError(
                f'{self._settings.url}: its answer is not {{"passages": [text, …]}}'
            ) from error
        if not isinstance(passages, list) or not all(isinstance(one, str) for one in passages):
            raise RetrieverError(f"{self._settings.url}: its passages are not a list of texts")
        kept = tuple(map(storable, passages[: self._settings.passages]))
        return Found(kept, tuple(f"{self._settings.url} {n}" for n in range(1, len(kept) + 1)))
