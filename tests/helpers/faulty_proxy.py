"""A proxy before a real environment server that fails at random, as gateways and networks do. No test by itself."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import requests

STATUSES = (429, 502, 503, 504)
KINDS = (*map(str, STATUSES), "cut before", "cut after", "no JSON", "empty")


class FaultyProxy(ThreadingHTTPServer):
    """Passes requests on; a share `rate` of them meets one of KINDS, before or after the real server executes it."""

    daemon_threads = True

    def __init__(self, target: str, rate: float, seed: int = 0, extensions: bool = True) -> None:
        """`extensions`: False hides what the server offers beyond AgentGym's interface."""
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.rate, self.extensions = target, rate, extensions
        self.random, self.lock = Random(seed), threading.Lock()
        self.met: Counter[str] = Counter()  # faults by kind
        self.paths: Counter[str] = Counter()  # requests by path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def draw(self) -> tuple[str, bool]:
        """The fault of a request, and whether the server executes it all the same."""
        with self.lock:
            kind = self.random.choice(KINDS) if self.random.random() < self.rate else ""
            self.met[kind] += 1
            return kind, self.random.random() < 0.5


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyProxy

    def setup(self) -> None:
        super().setup()
        self.client = requests.Session()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if not self.server.extensions and self.path in ("/about", "/replay", "/fork"):
            self.answer(404, b'{"detail": "Not Found"}')
            return
        kind, executed = self.server.draw()
        self.server.paths[self.path] += 1
        executed = executed or kind in ("", "cut after")
        if executed and kind != "cut before":
            headers = {"Content-Type": "application/json"}
            real = self.client.request(
                self.command, self.server.target + self.path, data=sent, headers=headers
            )
        if not kind:
            self.answer(real.status_code, real.content)
        elif kind.startswith("cut"):
            self.close_connection = True
        else:
            body = {"no JSON": b"<html>Bad gateway</html>", "empty": b""}.get(kind)
            self.answer(200 if body is not None else int(kind), body or b"")

    do_GET = do_POST


@contextmanager
def failing(target: str, rate: float, extensions: bool = True) -> Iterator[FaultyProxy]:
    """The proxy, in threads of this process."""
    proxy = FaultyProxy(target, rate, extensions=extensions)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
