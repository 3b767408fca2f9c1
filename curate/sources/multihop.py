"""Contexts of several passages, and which of them the answer rests on.

Known by their shape: HotpotQA (Yang et al. 2018; ``context`` and ``supporting_facts``, as in its
files and as on the hub) and MuSiQue (Trivedi et al. 2022; ``paragraphs`` with ``is_supporting``).
"""

from typing import Any

from curate.errors import UserError
from curate.record import BETWEEN_PASSAGES
from curate.text import find_answer

Span = tuple[int, int]


def joined(value: dict[str, Any], where: str) -> tuple[dict[str, Any], list[Span]]:
    """The row with its passages joined to one context, and the spans of the supporting sentences.

    Answer, aliases, label and id get our names. A row of another shape comes back as it is. Raises
    `UserError` where a supporting fact names what is not there.
    """
    if isinstance(value.get("paragraphs"), list):
        passages = [_musique(paragraph, where) for paragraph in value["paragraphs"]]
    elif value.get("supporting_facts") is not None:
        passages = _hotpot(value, where)
    else:
        return value, []
    texts: list[str] = []
    spans: list[Span] = []
    offset = 0
    for title, sentences, supporting in passages:
        text = f"{title}\n" if title else ""
        for number, sentence in enumerate(sentences):
            start = offset + len(text)
            text += sentence
            if number in supporting:
                spans.append((start, offset + len(text)))
        texts.append(text)
        offset += len(text) + len(BETWEEN_PASSAGES)
    context = BETWEEN_PASSAGES.join(texts)
    answers = [value["answer"], *(value.get("answer_aliases") or [])] if value.get("answer") else []
    named = {
        "context": context,
        "answers": answers,
        "answer_starts": [_start(context, str(answer), spans) for answer in answers],
        "source_id": value.get("_id") or value.get("id"),
    }
    if "paragraphs" in value:  # MuSiQue's question and its twin that lacks a passage have one id
        named["document_id"] = value.get("id")
    if value.get("answerable") is False:  # MuSiQue's contrast rows lack a supporting paragraph
        named |= {"sufficient": False, "reason": "partial_evidence"}
    return {**named, **_given(value), "context": context}, spans


def _given(value: dict[str, Any]) -> dict[str, Any]:
    """What the row says under our names; it may have been mapped there by the user."""
    return {key: found for key, found in value.items() if found is not None}


def _start(context: str, answer: str, spans: list[Span]) -> int:
    """Where the answer stands, in a supporting sentence if in any; −1 for "yes" and "no"."""
    found = (find_answer(context, answer, start, end) for start, end in spans)
    return next((start for start in found if start >= 0), find_answer(context, answer))


Passage = tuple[str, list[str], set[int]]  # title, sentences, which of them support


def _musique(value: Any, where: str) -> Passage:
    if not isinstance(value, dict) or not isinstance(value.get("paragraph_text"), str):
        raise UserError(f"{where}: 'paragraphs' must be objects with 'title' and 'paragraph_text'")
    supporting = {0} if value.get("is_supporting") else set()
    return str(value.get("title") or ""), [value["paragraph_text"]], supporting


def _hotpot(value: dict[str, Any], where: str) -> list[Passage]:
    context, facts = value.get("context"), value["supporting_facts"]
    if isinstance(context, dict) and isinstance(facts, dict):  # as on the hub: columns
        pairs = list(zip(context.get("title", []), context.get("sentences", []), strict=True))
        named = list(zip(facts.get("title", []), facts.get("sent_id", []), strict=True))
    else:
        pairs, named = context or [], facts
    try:
        passages = {str(title): (list(sentences), set[int]()) for title, sentences in pairs}
        for title, number in named:
            sentences, supporting = passages[title]
            if int(number) < len(sentences):  # a few of HotpotQA's own point behind the end
                supporting.add(int(number))
    except (TypeError, ValueError, KeyError) as error:
        raise UserError(
            f"{where}: 'context' must be pairs of title and sentences, and 'supporting_facts' "
            f"pairs of a title among them and a sentence's number ({error!r})"
        ) from error
    return [(title, sentences, supporting) for title, (sentences, supporting) in passages.items()]
