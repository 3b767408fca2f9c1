"""From fetched pages to rows and passages, and the list of what became of every address."""

import functools
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pyarrow as pa
from tqdm import tqdm

from curate.record import Passage, Row
from curate.scrape.store import Store
from curate.sources.forum import discourse, thread
from curate.web import page
from curate.workers import mapping

REPORT = pa.schema(
    [
        *((name, pa.string()) for name in ("url", "state")),
        ("depth", pa.int64()),
        *((name, pa.string()) for name in ("found_on", "reason", "detail")),
        *((name, pa.int64()) for name in ("pairs", "passages")),
        ("faults", pa.list_(pa.string())),
    ]
)


@dataclass
class Extracted:
    """What all pages gave; ``by_page`` are numbers of pairs and passages, and faults."""

    rows: list[Row] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    by_page: dict[str, tuple[int, int, list[str]]] = field(default_factory=dict)


def extract(store: Store, licence: str, workers: int) -> Extracted:
    """Read every page of the crawl, in the order of their addresses."""
    result = Extracted()
    done = list(store.done())
    read = functools.partial(_read, store.path, licence)
    forum: list[tuple[str, str, bytes]] = []
    with mapping(workers) as run:
        for (url, at), found in tqdm(
            zip(done, run(read, *zip(*done, strict=True)) if done else (), strict=True),
            desc="extract",
            unit="page",
            total=len(done),
        ):
            if isinstance(found, bytes):
                forum.append((url, at, found))
                continue
            result.rows += found.rows
            result.passages += found.passages
            result.by_page[url] = (len(found.rows), len(found.passages), found.faults)
    _add_threads(result, forum, licence)
    return result


def _read(path: Path, licence: str, url: str, retrieved_at: str) -> page.PageContent | bytes:
    """One page's content; of JSON the bytes, since a topic has several."""
    store = Store(path)
    try:
        kept = store.page(url)
    finally:
        store.close()
    if kept.content_type == "application/json":
        return kept.body
    if discourse.entrance(kept.url, kept.body):
        return page.PageContent()  # its topics are read as JSON
    parsed = httpx2.URL(kept.url)
    name = parsed.raw_path.decode().lstrip("/")
    html = page.decode(kept.body, kept.charset)
    return page.read(html, name, parsed.netloc.decode(), kept.url, licence, retrieved_at)


def _add_threads(result: Extracted, forum: list[tuple[str, str, bytes]], licence: str) -> None:
    times = {url: at for url, at, _ in forum}
    newest = max(times.values(), default="")
    for one in discourse.threads([(url, discourse.parsed(body)) for url, _, body in forum]):
        source = httpx2.URL(one.url).netloc.decode()
        result.rows.append(thread.to_row(one, source, licence, newest).stamped())
    result.by_page.update({url: (0, 0, []) for url in times})


def report(store: Store, extracted: Extracted) -> pa.Table:
    """What became of every address that the crawl met."""
    names = ("url", "state", "depth", "found_on", "reason", "detail")
    lines = []
    for known in store.report():
        pairs, passages, faults = extracted.by_page.get(known[0], (0, 0, []))
        counts = {"pairs": pairs, "passages": passages, "faults": faults}
        lines.append(dict(zip(names, known, strict=True)) | counts)
    return pa.Table.from_pylist(lines, schema=REPORT)


def nothing(store: Store) -> str:
    """Why a crawl gave no page at all, for a person."""
    hints = {"private_address": "; if the host is yours, say --allow-private"}
    lines = [
        f"{url}: {reason}: {detail}{hints.get(reason, '')}"
        for url, _, _, _, reason, detail in store.report()
    ]
    return "\n  ".join(("no page could be read", *lines[:10]))


def reasons(store: Store) -> Counter[str]:
    """Why addresses gave no page, and how many did each."""
    return Counter(known[4] for known in store.report() if known[1] == "refused")
