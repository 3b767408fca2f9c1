"""`curate scrape`: the command. It imports what it needs, so that `--help` is instant."""

from pathlib import Path
from typing import Any

import click

from curate import console
from curate.console import json_option, workers_option

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("urls", metavar="URL...", nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help="Parquet file for the pairs.")
@click.option(
    "--scope",
    "reach",
    type=click.Choice(["folder", "host"]),
    default="folder",
    show_default=True,
    help="Follow links below the URL's folder, or on its whole host.",
)
@click.option("--exclude", default="", metavar="REGEX", help="Addresses to leave out.")
@click.option(
    "--max-pages", type=click.IntRange(1), default=2_000, show_default=True, help="Pages to fetch."
)
@click.option("--max-depth", type=click.IntRange(0), default=10, show_default=True, help="Links.")
@click.option(
    "--delay",
    type=click.FloatRange(0),
    default=0.5,
    show_default=True,
    help="Seconds between requests to a host; its robots.txt may ask for more.",
)
@click.option(
    "--concurrency", type=click.IntRange(1), default=2, show_default=True, help="Of one host."
)
@click.option(
    "--timeout", type=click.FloatRange(0.1), default=30, show_default=True, help="Of one page, s."
)
@click.option(
    "--max-bytes", type=click.IntRange(1), default=5_000_000, show_default=True, help="Of a page."
)
@click.option(
    "--allow-private", is_flag=True, help="The URLs given may be on private or loopback addresses."
)
@click.option("--sitemaps/--no-sitemaps", default=True, help="Read the site's sitemaps, too.")
@click.option("--licence", default="", help="For pages that state none.")
@workers_option
@json_option
def scrape(
    urls: tuple[str, ...],
    out: Path,
    licence: str,
    workers: int,
    as_json: bool,
    max_bytes: int,
    timeout: float,
    **settings: Any,
) -> None:
    """Fetch a help site, documentation or a forum from URL, and find its questions with answers.

    Pairs come from what pages declare (schema.org FAQPage and QAPage) and from how they look:
    details, accordions, definition lists and headings that ask something. All other text becomes
    passages, in OUT.passages.parquet. Of a Discourse forum the topics' JSON is read: a solution
    answers, a topic without one gets no label, for annotators.

    robots.txt is obeyed; where it cannot be read, nothing is. What was fetched stays in
    OUT.crawl.sqlite: an interrupted crawl goes on, a later one asks only for what has changed.
    OUT.pages.parquet says what became of every address.

    \b
      curate scrape https://example.org/help/ --out help.parquet
      curate scrape http://127.0.0.1:8000/faq/ --allow-private --delay 0 --out faq.parquet
    """
    from curate import record
    from curate.errors import UserError
    from curate.files import writable_folder
    from curate.scrape import extract
    from curate.scrape.crawl import Settings, crawl
    from curate.scrape.fetch import Limits, Refused, plain_url
    from curate.scrape.store import Store

    try:
        starts = tuple(plain_url(url, url) for url in urls)
    except Refused as error:
        raise click.UsageError(f"{error.detail}; like https://example.org/help/") from error
    writable_folder(out.parent)
    store = Store(out.with_suffix(".crawl.sqlite"))
    try:
        limits = Limits(max_bytes=max_bytes, timeout=timeout)
        crawled = crawl(Settings(starts, limits=limits, **settings), store)
        found = extract.extract(store, licence, workers)
        if not found.by_page:
            raise UserError(extract.nothing(store))
        record.write_table(record.to_table(found.rows), out)
        record.write_table(record.passages_to_table(found.passages), record.passages_beside(out))
        record.write_table(extract.report(store, found), out.with_suffix(".pages.parquet"))
        refused = extract.reasons(store)
    finally:
        store.close()
    counts = {
        "pairs": len(found.rows),
        "unlabelled": sum(row.sufficient is None for row in found.rows),
        "passages": len(found.passages),
        "pages": crawled.pages,
        "unchanged": crawled.unchanged,
        "resumed": crawled.resumed,
        "waiting": crawled.waiting,
        "refused": dict(refused),
        "left_out": dict(crawled.left_out),
        "faults": crawled.faults,
    }
    console.show(counts, _told(counts, out), as_json)


def _told(counts: dict[str, Any], out: Path) -> str:
    lines = [
        f"{counts['pages']:,} pages fetched, {counts['unchanged']:,} unchanged, "
        f"{counts['resumed']:,} of before",
        f"{counts['pairs']:,} pairs ({counts['unlabelled']:,} without a label), "
        f"{counts['passages']:,} passages",
    ]
    if counts["refused"]:
        lines.append(f"not read: {console.listed(counts['refused'])}")
    if counts["left_out"]:
        lines.append(f"links not followed: {console.listed(counts['left_out'])}")
    lines += counts["faults"]
    if counts["waiting"]:
        lines.append(f"{counts['waiting']:,} pages wait; the same command goes on (--max-pages)")
    return "\n".join((*lines, f"written to {out} (every address: {out.stem}.pages.parquet)"))
