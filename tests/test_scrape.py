"""The scraper against a real server: what it reads, and what it does not let be done to it."""

import gzip
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from curate_helpers import ROOT, curate
from helpers import BIN, ENVIRONMENT
from web_server import WebServer, plain, redirect, serving

from curate.record import PASSAGE_SCHEMA, Row, passages_from_table, read_rows, read_table
from curate.scrape.crawl import Crawled, Settings, crawl
from curate.scrape.fetch import Limits, Refused, plain_url
from curate.scrape.guard import is_public
from curate.scrape.sitemap import parse
from curate.scrape.store import Store

PAIR = "<main><h1>Help</h1><h2>Who pays?</h2><p>You do.</p></main>"


@pytest.fixture
def web() -> Iterator[WebServer]:
    with serving() as server:
        yield server


def crawled(web: WebServer, folder: Path, path: str = "/", **how: Any) -> tuple[Crawled, Store]:
    """Crawl a server in this process, without delays."""
    store = Store(folder / "c.sqlite")
    limits = how.pop("limits", Limits(timeout=5))
    settings = Settings((web.url + path,), delay=0, allow_private=True, limits=limits, **how)
    return crawl(settings, store), store


def became(store: Store, web: WebServer) -> dict[str, str]:
    """Path → state, or the reason of a refusal."""
    return {url.removeprefix(web.url): reason or state for url, state, _, _, reason, _ in
            store.report()}  # fmt: skip


def links(*targets: str) -> str:
    return "".join(f"<p><a href='{target}'>to {target}</a></p>" for target in targets)


def test_site_becomes_pairs_and_passages_with_their_provenance(
    web: WebServer, tmp_path: Path
) -> None:
    web.html("/help/", links("a.html", "a.html#part", "/help/b.html", "/blog/", "mailto:a@b.c"))
    web.html("/help/a.html", f"{PAIR}<a rel='license' href='https://example.org/by'>L</a>")
    web.html("/help/b.html", "<main><h1>Bikes</h1><p>All about bikes.</p></main>")
    out = tmp_path / "help.parquet"
    done = curate("scrape", f"{web.url}/help/", "--allow-private", "--delay", 0, "--out", out,
                  "--licence", "CC0-1.0", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    (row,) = read_rows(out)
    assert (row.question, row.answers, row.sufficient) == ("Who pays?", ["You do."], True)
    assert (row.url, row.heading) == (f"{web.url}/help/a.html", "Help")
    assert row.licence == "https://example.org/by" and row.retrieved_at and row.content_hash
    passages = passages_from_table(
        read_table(tmp_path / "help.passages.parquet", PASSAGE_SCHEMA)
    )  # fmt: skip
    bikes = next(p for p in passages if p.context == "All about bikes.")
    assert (bikes.heading, bikes.licence) == ("Bikes", "CC0-1.0")
    told = json.loads(done.stdout)
    assert (told["pages"], told["left_out"]) == (3, {"out_of_scope": 2})
    assert web.asked["/blog/"] == 0 and web.asked["/help/a.html"] == 1
    assert "grounded-abstain/" in web.headers["/help/"]["User-Agent"]


def test_robots_txt_is_obeyed(web: WebServer, tmp_path: Path) -> None:
    rules = "User-agent: *\nDisallow: /private\n\nUser-agent: grounded-abstain\nDisallow: /not-us"
    web.pages["/robots.txt"] = plain(rules, Content_Type="text/plain")
    web.html("/", links("/private", "/not-us"))
    web.html("/private", "for others")
    _, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "done", "/private": "done", "/not-us": "robots"}
    assert web.asked["/not-us"] == 0


def test_crawl_delay_of_robots_txt_is_kept_where_it_is_the_longer(
    web: WebServer, tmp_path: Path
) -> None:
    web.pages["/robots.txt"] = plain("User-agent: *\nCrawl-delay: 0.4")
    web.html("/", links("/a", "/b"))
    started = time.monotonic()
    crawled(web, tmp_path)
    # Pages wait for robots.txt, each other, and sitemap.xml: what is fast here broke the rule.
    assert time.monotonic() - started >= 0.4 * 3


@pytest.mark.parametrize("status", [500, 503, 403, 401, 429])
def test_where_robots_txt_cannot_be_read_nothing_is(
    web: WebServer, tmp_path: Path, status: int
) -> None:
    web.pages["/robots.txt"] = plain("", status=status)
    web.html("/", PAIR)
    _, store = crawled(web, tmp_path, limits=Limits(timeout=5, tries=1))
    assert became(store, web) == {"/": "robots"}
    assert web.asked["/"] == 0


def test_robots_txt_that_never_ends_closes_the_site(web: WebServer, tmp_path: Path) -> None:
    web.pages["/robots.txt"] = dripping
    web.html("/", PAIR)
    _, store = crawled(web, tmp_path, limits=Limits(timeout=0.5, tries=1))
    assert became(store, web) == {"/": "robots"}


@pytest.mark.parametrize(
    "target", ["http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://[::1]/"]
)
def test_redirect_to_a_private_address_is_not_followed(
    web: WebServer, tmp_path: Path, target: str
) -> None:
    web.pages["/"] = redirect(target)
    _, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "private_address"}


def test_allowed_is_the_host_that_was_named_and_no_other(web: WebServer, tmp_path: Path) -> None:
    with serving() as other:
        other.html("/", PAIR)
        web.pages["/"] = redirect(other.url)
        _, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "private_address"}
    assert not other.asked


def test_a_name_that_stands_for_a_private_address_is_refused(tmp_path: Path) -> None:
    with serving() as web:
        web.html("/", PAIR)
        out = tmp_path / "x.parquet"
        done = curate("scrape", f"http://localhost:{web.port}/", "--out", out)
        assert done.returncode == 1
        assert "private_address" in done.stderr and "--allow-private" in done.stderr
        assert not web.asked and not out.exists()


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "100.64.0.1",
     "0.0.0.0",  # noqa: S104
     "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "ff02::1",
     "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)  # fmt: skip
def test_private_addresses_are_known_in_every_wrapping(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_are_known(address: str) -> None:
    assert is_public(address)


def dripping(request: BaseHTTPRequestHandler) -> None:
    """A page that goes on and on, slowly."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.end_headers()
    for _ in range(100):
        request.wfile.write(b"<p>more</p>")
        request.wfile.flush()
        time.sleep(0.1)
    request.close_connection = True


def pouring(request: BaseHTTPRequestHandler) -> None:
    """A page that goes on and on, fast."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.end_headers()
    for _ in range(10_000):
        request.wfile.write(b"<p>more</p>" * 1000)
    request.close_connection = True


def cut(request: BaseHTTPRequestHandler) -> None:
    """A page whose connection ends before it does."""
    request.send_response(200)
    request.send_header("Content-Type", "text/html")
    request.send_header("Content-Length", "1000")
    request.end_headers()
    request.wfile.write(b"<p>half")
    request.close_connection = True


def test_hostile_pages_are_refused_by_name_and_the_others_read(
    web: WebServer, tmp_path: Path
) -> None:
    bomb = gzip.compress(b"a" * 200_000_000)
    web.pages |= {
        "/drips": dripping,
        "/pours": pouring,
        "/bomb": plain(bomb, Content_Encoding="gzip"),
        "/half": plain(gzip.compress(b"<p>text" * 1000)[:50], Content_Encoding="gzip"),
        "/no-gzip": plain("<p>text", Content_Encoding="gzip"),
        "/brotli": plain("<p>text", Content_Encoding="br"),
        "/cut": cut,
        "/around": redirect("/around"),
        "/away": redirect("https://example.org/"),
        "/nowhere": redirect("ftp://example.org/"),
        "/movie": plain("…", Content_Type="video/mp4"),
        "/untyped": plain("…", Content_Type=""),
        "/broken": plain("", status=500),
        "/unchanged": plain("", status=304),
        "/good": plain(gzip.compress(PAIR.encode()), Content_Encoding="gzip"),
    }
    web.html("/", links(*web.pages, "/missing", "/file.pdf", "http://[bad/", "javascript:1"))
    limits = Limits(timeout=2, tries=2, max_bytes=1_000_000)
    found, store = crawled(web, tmp_path, limits=limits, concurrency=16)
    assert became(store, web) == {
        "/": "done",
        "/good": "done",
        "/drips": "too_slow",
        "/pours": "too_large",
        "/bomb": "too_large",
        "/half": "cut_off",
        "/no-gzip": "content_encoding",
        "/brotli": "content_encoding",
        "/cut": "cut_off",
        "/around": "too_many_redirects",
        "/away": "out_of_scope",
        "/nowhere": "bad_link",
        "/movie": "content_type",
        "/untyped": "content_type",
        "/broken": "server_error",
        "/unchanged": "http_304",
        "/missing": "http_404",
    }
    assert found.left_out == {"content_type": 1}  # the PDF, by its name
    assert (web.asked["/broken"], web.asked["/missing"], web.asked["/file.pdf"]) == (2, 1, 0)


def test_loops_of_ten_thousand_links_end(web: WebServer, tmp_path: Path) -> None:
    many = links(*(f"/loop/{n}" for n in range(10_000)))
    web.html("/", many)
    for n in range(200):
        web.html(f"/loop/{n}", many + f"<p>{n}</p>")
    found, store = crawled(web, tmp_path, max_pages=50)
    assert store.count("done") == 50 and max(web.asked.values()) == 1
    assert (found.pages, found.waiting) == (50, 10_001 - 50)


def test_pages_that_lead_ever_deeper_are_left_at_the_given_depth(
    web: WebServer, tmp_path: Path
) -> None:
    def deeper(request: BaseHTTPRequestHandler) -> None:
        plain(f"<p>Day {request.path}</p>{links(request.path + 'x')}")(request)

    web.otherwise = deeper
    web.pages["/robots.txt"] = plain("gone", status=404)
    found, store = crawled(web, tmp_path, max_depth=7, sitemaps=False)
    assert (store.count("done"), found.left_out) == (8, {"too_deep": 1})


def test_busy_servers_are_given_their_time(web: WebServer, tmp_path: Path) -> None:
    def busy(status: int, wait: str) -> Any:
        def answer(request: BaseHTTPRequestHandler) -> None:
            first = web.asked[request.path] == 1
            (plain("", status, Retry_After=wait) if first else plain(PAIR))(request)

        return answer

    web.html("/", links("/429", "/503", "/later"))
    web.pages |= {"/429": busy(429, "1"), "/503": busy(503, "Wed, 21 Oct 2015 07:28:00 GMT")}
    web.pages["/later"] = busy(503, "86400")
    started = time.monotonic()
    _, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "done", "/429": "done", "/503": "done", "/later": "busy"}
    assert time.monotonic() - started >= 1  # it may take longer, but must not be less
    assert (web.asked["/429"], web.asked["/503"], web.asked["/later"]) == (2, 2, 1)


def test_a_later_run_asks_only_for_what_has_changed(web: WebServer, tmp_path: Path) -> None:
    def page(text: str, tag: str) -> Any:
        def answer(request: BaseHTTPRequestHandler) -> None:
            same = request.headers.get("If-None-Match") == tag
            plain("" if same else text, 304 if same else 200, ETag=tag)(request)

        return answer

    web.pages |= {"/": page(links("/a", "/b"), "1"), "/a": page(PAIR, "a1"),
                  "/b": page("<p>Old text.</p>", "b1")}  # fmt: skip
    found, store = crawled(web, tmp_path)
    assert (found.pages, found.unchanged) == (3, 0)
    web.pages["/b"] = page("<p>New text.</p>", "b2")
    found, store = crawled(web, tmp_path)
    assert (found.pages, found.unchanged) == (1, 2)
    assert store.page(f"{web.url}/b").body == b"<p>New text.</p>"
    assert store.page(f"{web.url}/a").body == PAIR.encode()
    web.pages["/"] = page(links("/a"), "2")  # what is linked no more is no longer of the site
    _, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "done", "/a": "done"}


def test_killed_crawl_goes_on_and_asks_for_no_page_twice(web: WebServer, tmp_path: Path) -> None:
    count = 60

    def slow(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.05)
        plain(f"<main><h2>Who keeps {request.path[1:]}?</h2><p>Keeper {request.path}</p></main>")(
            request
        )

    web.html("/", links(*(f"/p{n}" for n in range(count))))
    web.pages |= {f"/p{n}": slow for n in range(count)}
    out = tmp_path / "o.parquet"
    command = [BIN / "curate", "scrape", web.url, "--allow-private", "--delay", "0", "--out", out]
    process = subprocess.Popen(command, env=ENVIRONMENT, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if sum(web.asked.values()) > 25:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    time.sleep(0.2)
    asked = dict(web.asked)
    assert not out.exists() and len(asked) < count
    done = subprocess.run([*command, "--json"], env=ENVIRONMENT, capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert told["pages"] + told["resumed"] == count + 1 and told["resumed"] > 15
    # Only what was under way when the process died, at most two pages, is asked for again.
    again = [path for path, times in web.asked.items() if times > 1 and path.startswith("/p")]
    assert len(again) <= 2
    assert len(read_rows(out)) == count


def test_sitemaps_lead_to_pages_that_nothing_links_to(web: WebServer, tmp_path: Path) -> None:
    head = "<?xml version='1.0'?><{0} xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>{1}</{0}>"
    index = "".join(f"<sitemap><loc>{web.url}/{n}</loc></sitemap>" for n in ("m1.xml.gz", "m2.txt"))
    pages = "".join(
        f"<url><loc>{place}</loc></url>" for place in (f"{web.url}/one", "https://example.org/x")
    )
    bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;&a;'>]>"
    web.pages |= {
        "/robots.txt": plain(f"Sitemap: {web.url}/index.xml\nSitemap: {web.url}/bad.xml"),
        "/index.xml": plain(head.format("sitemapindex", index), Content_Type="text/xml"),
        "/m1.xml.gz": plain(gzip.compress(head.format("urlset", pages).encode())),
        "/m2.txt": plain(f"{web.url}/two\n", Content_Type="text/plain"),
        "/bad.xml": plain(f"{bomb}<urlset><url><loc>&b;</loc></url></urlset>"),
    }
    for name in ("/", "/one", "/two"):
        web.html(name, f"<p>Page {name}</p>")
    found, store = crawled(web, tmp_path)
    assert became(store, web) == {"/": "done", "/one": "done", "/two": "done"}
    assert found.left_out == {"out_of_scope": 1}
    assert (found.faults, parse(b"<urlset><loc>&#0;</loc>")[0]) == ([], [])


def test_start_may_move_to_another_address_and_the_scope_with_it(tmp_path: Path) -> None:
    with serving() as web:
        web.pages["/start/"] = redirect("/docs/3/index.html")
        web.html("/docs/3/index.html", links("a.html", "/docs/2/b.html"))
        web.html("/docs/3/a.html", PAIR)
        found, _ = crawled(web, tmp_path, "/start/", max_pages=1)
        assert (found.pages, found.waiting) == (1, 1)
        found, store = crawled(web, tmp_path, "/start/")
        assert (found.resumed, found.pages, store.count("done")) == (1, 1, 2)
        assert web.asked["/docs/3/a.html"] == 1 and web.asked["/docs/2/b.html"] == 0


def test_same_page_under_several_addresses_is_read_once(web: WebServer, tmp_path: Path) -> None:
    web.html("/", links("/a", "/a?session=1", "/b"))
    for path in ("/a", "/a?session=1"):
        web.html(path, PAIR)
    web.pages["/b"] = redirect("/a")
    _, store = crawled(web, tmp_path)
    assert [url.removeprefix(web.url) for url, _ in store.done()] == ["/", "/a"]


def test_host_is_followed_as_a_whole_where_asked_and_excluded_addresses_are_not(
    web: WebServer, tmp_path: Path
) -> None:
    web.html("/help/", links("/blog/", "/help/print?x=1"))
    web.html("/blog/", "<p>News.</p>")
    found, store = crawled(web, tmp_path, "/help/", reach="host", exclude=r"[?]x=")
    assert became(store, web) == {"/help/": "done", "/blog/": "done"}
    assert found.left_out == {"excluded": 1}


@pytest.mark.parametrize(
    ("base", "link", "url"),
    [
        ("http://a.example/x/y", "../z#part", "http://a.example/z"),
        ("http://a.example/", "HTTP://B.example:80/q?x=1", "http://b.example/q?x=1"),
        ("https://a.example/", "https://user:key@b.example:443/", "https://b.example/"),
        ("http://a.example/", " /bücher ", "http://a.example/b%C3%BCcher"),
    ],
)
def test_links_become_plain_addresses(base: str, link: str, url: str) -> None:
    assert plain_url(base, link) == url


@pytest.mark.parametrize("link", ["mailto:a@b", "file:///etc/passwd", "http://a:99999999/"])
def test_what_is_no_web_address_is_refused(link: str) -> None:
    with pytest.raises(Refused, match="bad_link"):
        plain_url("http://a.example/", link)


def test_a_crawl_of_other_pages_does_not_take_up_this_one(web: WebServer, tmp_path: Path) -> None:
    web.html("/", links("/a"))
    web.html("/a", PAIR)
    crawled(web, tmp_path, max_pages=1)
    found, _ = crawled(web, tmp_path, exclude="nothing")
    assert (found.resumed, found.pages) == (0, 2)
    with pytest.raises(Exception, match="not a crawl's file"):
        (tmp_path / "x.sqlite").write_bytes(b"no database " * 100)
        Store(tmp_path / "x.sqlite")


def authored() -> set[tuple[str, str]]:
    """The demonstration site's own pairs, read from its files by other means than ours."""
    import re

    found = set()
    for file in (ROOT / "data" / "demo" / "site").glob("*.html"):
        text = file.read_text()
        for script in re.findall(r"<script type=.application/ld.json.>(.*?)</script>", text, re.S):
            for one in json.loads(script)["mainEntity"]:
                found.add((one["name"], one["acceptedAnswer"]["text"]))
        for asked, answer in re.findall(
            r"<details>\s*<summary>(.*?)</summary>(.*?)</details>", text, re.S
        ):
            found.add((asked, re.sub(r"<[^>]+>", " ", answer)))
    return {(" ".join(q.split()), " ".join(a.split())) for q, a in found}


def test_every_authored_pair_of_the_demonstration_site_is_found_and_none_invented(
    tmp_path: Path, web: WebServer
) -> None:
    site = ROOT / "data" / "demo" / "site"
    names = sorted(file.name for file in site.glob("*.html"))
    web.html("/", links(*names))
    web.pages |= {f"/{name}": plain((site / name).read_bytes()) for name in names}
    done = curate("scrape", web.url, "--allow-private", "--delay", 0, "--workers", 2,
                  "--out", tmp_path / "demo.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows: list[Row] = read_rows(tmp_path / "demo.parquet")
    found = {(row.question, " ".join(row.answers[0].split())) for row in rows}
    assert found == authored() and len(rows) == len(found) == 30
