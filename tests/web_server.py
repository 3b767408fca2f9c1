"""A real web server on loopback whose pages a test writes, and which counts what it is asked."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[BaseHTTPRequestHandler], None]


class WebServer:
    """Pages by path; ``asked`` counts requests by path, whatever became of them."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.pages: dict[str, Answer] = {}
        self.otherwise: Answer = plain("gone", status=404)
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, dict[str, str]] = {}  # of the last request of a path

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def html(self, path: str, body: str, **headers: str) -> None:
        """A page with links, and a title to tell it by."""
        self.pages[path] = plain(f"<!doctype html><html><body>{body}</body></html>", **headers)


def plain(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    """An answer as it is; header names with underscores for hyphens."""
    raw = body.encode() if isinstance(body, str) else body
    headers = {"Content_Type": "text/html; charset=utf-8", **headers}

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name.replace("_", "-"), value)
        request.send_header("Content-Length", str(len(raw)))
        request.end_headers()
        request.wfile.write(raw)

    return answer


def redirect(target: str) -> Answer:
    return plain("", status=302, Location=target)


@contextmanager
def serving(host: str = "127.0.0.1") -> Iterator[WebServer]:
    """A server on a free port, closed afterwards; robots.txt is absent unless a test writes it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path
            web.asked[path] += 1
            web.headers[path] = dict(self.headers)
            try:
                web.pages.get(path, web.otherwise)(self)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((host, 0), Handler)
    web = WebServer(host, server.server_address[1])
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
