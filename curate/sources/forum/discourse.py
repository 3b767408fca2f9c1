"""Discourse forums, by the JSON that every page of theirs also is (append ``.json``).

Lists of topics are ``/latest.json`` and ``/c/…/ID.json``, a topic ``/t/ID.json``: its first posts,
the further ones by ``?page=N``. The solution is what the plugin "Discourse Solved" marks.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from bs4 import BeautifulSoup

from curate.files import read_json
from curate.record import Row
from curate.sources import stream
from curate.sources.forum.thread import Reply, Thread, to_row
from curate.web.blocks import text_of

_GENERATOR = re.compile(rb"""<meta[^>]+name=["']generator["'][^>]+content=["']Discourse""", re.I)
_LIKE = 2  # the number of "like" among a post's actions


def read(path: str, name: str, licence: str = "", base_url: str = "") -> Iterator[Row]:
    """Read rows from a saved topic, or a folder of them (``*.json``); a topic each."""
    found = [(base_url, read_json(file)) for file in stream.json_files(Path(path))]
    for one in threads(found):
        yield to_row(one, name, licence).stamped()


def entrance(url: str, body: bytes) -> list[str]:
    """Where a Discourse forum's JSON begins, if ``body`` is a page of one."""
    if not _GENERATOR.search(body[:20_000]):
        return []
    path = httpx2.URL(url).path.rstrip("/")
    listed = path.startswith(("/c/", "/t/", "/tag/"))
    return [str(httpx2.URL(url).join(f"{path}.json" if listed else "/latest.json"))]


def links(url: str, body: bytes) -> Iterator[str]:
    """Topics of a list, its next page, and a topic's further pages."""
    value = parsed(body)
    listed = _get(value, "topic_list")
    for topic in _list(listed, "topics"):
        if isinstance(_get(topic, "id"), int):
            yield str(httpx2.URL(url).join(f"/t/{topic['id']}.json"))
    more = _get(listed, "more_topics_url")
    if isinstance(more, str) and more:
        path, _, query = more.partition("?")
        path = path if path.endswith(".json") else f"{path}.json"
        yield str(httpx2.URL(url).join(f"{path}?{query}"))
    stream = _get(value, "post_stream")
    posts, all_posts = _list(stream, "posts"), _list(stream, "stream")
    if posts and "page" not in httpx2.URL(url).params:
        for number in range(2, -(-len(all_posts) // len(posts)) + 1):
            yield str(httpx2.URL(url).copy_merge_params({"page": number}))


def threads(pages: list[tuple[str, Any]]) -> list[Thread]:
    """The topics among JSON pages, given with their addresses; one topic's pages are put together.

    Other JSON is passed over: lists of topics say nothing themselves.
    """
    topics: dict[str, tuple[dict[str, Any], dict[int, Any]]] = {}
    for url, value in pages:
        posts = _list(_get(value, "post_stream"), "posts")
        if posts and _get(value, "id") is not None:
            key = str(httpx2.URL(url).join(f"/t/{value['id']}"))
            about, known = topics.setdefault(key, (value, {}))
            about.update({name: one for name, one in value.items() if one and not about.get(name)})
            known.update({int(_get(post, "post_number") or 0): post for post in posts})
    return [_thread(key, about, posts) for key, (about, posts) in topics.items()]


def _thread(url: str, about: dict[str, Any], posts: dict[int, Any]) -> Thread:
    solved = _get(_get(about, "accepted_answer"), "post_number")
    first, *replies = (posts[number] for number in sorted(posts))
    return Thread(
        question=str(about.get("title") or ""),
        body=_text(first),
        replies=[
            Reply(
                _text(post),
                bool(_get(post, "accepted_answer")) or _get(post, "post_number") == solved,
                _likes(post),
                str(_get(post, "created_at") or ""),
            )
            for post in replies
            if _text(post) and not _get(post, "action_code")  # "closed this topic"
        ],
        identifier=f"topic-{about['id']}",
        url=url,
        published_at=str(_get(first, "created_at") or ""),
    )


def _likes(post: Any) -> float:
    actions = [one for one in _list(post, "actions_summary") if _get(one, "id") == _LIKE]
    return float(sum(int(_get(one, "count") or 0) for one in actions))


def _text(post: Any) -> str:
    soup = BeautifulSoup(str(_get(post, "cooked") or ""), "lxml")
    for quote in soup.select("aside.quote"):  # what others said stands in their own posts
        quote.decompose()
    return text_of(soup)


def parsed(body: bytes) -> Any:
    """A page's JSON; None where it is none."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _list(value: Any, key: str) -> list[Any]:
    found = _get(value, key)
    return found if isinstance(found, list) else []
