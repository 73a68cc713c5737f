"""Requests to environment servers against real sockets: whole requests, lost connections, redirects, proxies, TLS."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from mcts_utils.envs.errors import ConnectionLost, EnvStatus, NotConnected
from mcts_utils.envs.http import HttpSession
from mcts_utils.types import EnvError

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 2\r\n\r\n{}"
BYE = OK + b"Connection: close\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def peer(*answers: bytes, tls: ssl.SSLContext | None = None) -> Iterator[tuple[str, list[bytes]]]:
    """A server with these answers, in order; it ends a connection after one that is not kept.

    Gives its URL and the requests that it has read.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []
    left = list(answers)

    def converse(connection: socket.socket) -> None:
        with connection:
            while left:
                request = connection.recv(1 << 20)
                head, _, body = request.partition(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
                while request and len(body) < size:
                    body += connection.recv(1 << 20)
                if not request:
                    return
                heard.append(head + b"\r\n\r\n" + body)
                answer = left.pop(0)
                connection.sendall(answer)
                if b"ength: 2\r" not in answer or b"close" in answer:
                    return

    def accept() -> None:
        while left:
            try:
                connection, _ = listener.accept()
                converse(tls.wrap_socket(connection, server_side=True) if tls else connection)
            except OSError:
                continue

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    with listener:
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{listener.getsockname()[1]}", heard
        finally:
            left.clear()  # the thread ends
            with suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def session(url: str) -> HttpSession:
    return HttpSession(url, timeout=30, backoff=0)


def test_a_request_arrives_whole_and_the_connection_is_used_again() -> None:
    with peer(HELLO, HELLO, HELLO) as (url, heard):
        http = session(f"{url}/base")
        assert http.post("/a", {"x": "ü" * 50_000}) == {}
        assert http.get("/b", {"c": "d e"}) == {}
        assert http.post("/a", {}, reconnect=False) == {}
        http.close()
    assert heard[0].startswith(b"POST /base/a HTTP/1.1\r\n") and heard[0].endswith(b'\\u00fc"}')
    assert heard[1].startswith(b"GET /base/b?c=d+e HTTP/1.1\r\n")


def test_a_connection_that_the_server_ends_is_noticed_before_a_request_is_sent() -> None:
    with peer(BYE, BYE, HELLO) as (url, heard):
        http = session(url)
        http.post("/create", {})
        with pytest.raises(NotConnected) as gone:
            http.post("/step", {}, reconnect=False)
        assert gone.value.expected, "the answer had announced it"
        assert http.post("/step", {}) == {}
        assert http.post("/step", {}) == {}
    assert len(heard) == 3


def test_a_session_without_a_connection_opens_none_for_a_request_that_must_not() -> None:
    with peer(HELLO) as (url, heard), pytest.raises(NotConnected):
        session(url).post("/step", {}, reconnect=False)
    assert not heard


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", OK + b"Content-Length: 9\r\n\r\nhello", OK[:9], b"SSH-2.0-x\r\n"]
)
def test_what_is_no_answer_is_one_line_and_never_asked_for_again(answer: bytes) -> None:
    with (
        peer(answer, HELLO) as (url, heard),
        pytest.raises(ConnectionLost, match=f"POST {url}/step: .") as lost,
    ):
        session(url).post("/step", {})
    assert len(str(lost.value).splitlines()) == 1 and not lost.value.slow
    assert len(heard) == 1


def test_a_redirect_is_not_followed() -> None:
    moved = b"HTTP/1.1 307 Moved\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 2\r\n\r\n{}"
    with peer(moved) as (url, _), pytest.raises(EnvStatus, match="HTTP 307"):
        session(url).post("/step", {})


def test_proxies_of_the_machine_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with peer(HELLO) as (url, _):
        assert session(url).get("/") == {}


def test_nobody_there_is_one_line() -> None:
    with pytest.raises(ConnectionLost, match="Connection refused") as lost:
        session("http://127.0.0.1:9").post("/step", {})
    assert len(str(lost.value).splitlines()) == 1 and "object at" not in str(lost.value)


@pytest.mark.skipif(
    shutil.which("openssl") is None, reason="TLS is tested where openssl can make a certificate"
)
def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    with peer(HELLO, tls=tls) as (url, heard):
        with pytest.raises(EnvError, match="CERTIFICATE_VERIFY_FAILED"):
            session(url).post("/step", {})
        assert not heard
        trusting = ssl.create_default_context(cafile=certificate)
        monkeypatch.setattr("mcts_utils.envs.connection.certificates", lambda: trusting)
        assert session(url).post("/step", {}) == {}
