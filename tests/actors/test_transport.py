"""The openai library's requests over http.client, against real sockets."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest

from mcts_utils.actors.transport import PooledTransport


class Echo(BaseHTTPRequestHandler):
    """Answers with what it was sent, compressed; counts connections; never answers to /slow."""

    protocol_version = "HTTP/1.1"
    connections = 0
    released = threading.Event()

    def setup(self) -> None:
        super().setup()
        Echo.connections += 1

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/slow":
            self.released.wait()
            self.close_connection = True
            return
        body = gzip.compress(f"{self.path} {self.headers['X-Word']} ".encode() + sent)
        self.send_response(429 if self.path == "/busy" else 200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Retry-After", "3")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def url() -> Iterator[str]:
    Echo.connections = 0
    Echo.released.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    Echo.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


def client(url: str, timeout: float = 30) -> httpx2.Client:
    return httpx2.Client(transport=PooledTransport(url), timeout=timeout, headers={"X-Word": "so"})


def test_requests_share_a_connection_and_answers_arrive_decoded(url: str) -> None:
    with client(url) as http:
        answer = http.post(f"{url}/a?b=c%20d", json={"x": "ü" * 50_000})
        assert answer.text.startswith("/a?b=c%20d so ") and answer.text.endswith('ü"}')
        busy = http.post(f"{url}/busy", content=b"y")
    assert (busy.status_code, busy.headers["retry-after"], busy.text) == (429, "3", "/busy so y")
    assert Echo.connections == 1


def test_failures_are_the_librarys_errors(url: str) -> None:
    with client(url, 0.1) as http, pytest.raises(httpx2.TimeoutException):
        http.post(f"{url}/slow", content=b"")
    with client("http://127.0.0.1:9") as http, pytest.raises(httpx2.TransportError, match="refused"):
        http.post("http://127.0.0.1:9", content=b"")
