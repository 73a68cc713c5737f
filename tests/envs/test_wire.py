"""The light transport against real sockets: bodies of every kind, kept and closed connections, what goes wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from mcts_utils.envs.wire import Transport

OK = b"HTTP/1.1 200 OK\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"


@contextmanager
def peer(*answers: bytes | None) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives these answers in order, over whatever connections; None closes the connection, unanswered.

    Gives its URL and the requests it has read.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    heard: list[bytes] = []
    left = iter(answers)
    held: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        try:
            converse(connection)
        except OSError:
            pass  # closed at the end of the test

    def converse(connection: socket.socket) -> None:
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = connection.recv(65536)
                if not data:
                    return
                buffer += data
            head, _, rest = buffer.partition(b"\r\n\r\n")
            size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0] or 0)
            while len(rest) < size:
                rest += connection.recv(65536)
            heard.append(head + b"\r\n\r\n" + rest[:size])
            buffer = rest[size:]
            answer = next(left)
            if answer is None:
                connection.close()
                return
            connection.sendall(answer)
            if b"close" in answer or b"ength" not in answer and b"chunked" not in answer:
                connection.close()
                return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", heard
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in held:
            connection.close()
        thread.join()


@contextmanager
def client(keep_alive: float = 60.0) -> Iterator[tuple[httpx.Client, list[str]]]:
    """A client, and what its transport told about connections."""
    told: list[str] = []
    transport: Any = Transport(httpx, keep_alive)
    with httpx.Client(transport=transport, timeout=30, trust_env=False) as found:
        send = found.request

        def traced(*args, **options):
            return send(*args, extensions={"trace": lambda event, info: told.append(event)}, **options)

        found.request = traced  # type: ignore[method-assign]
        yield found, told


def test_a_connection_is_used_again_and_requests_arrive_whole():
    with peer(HELLO, HELLO) as (url, heard), client() as (http, told):
        assert http.request("POST", f"{url}/a?b=c%20d", json={"x": "ü" * 50_000}).text == "hello"
        assert http.request("GET", url).text == "hello"
    assert told == ["connection.connect_tcp.started"]
    assert heard[0].startswith(b"POST /a?b=c%20d HTTP/1.1\r\n")
    assert heard[0].endswith(("ü" * 50_000 + '"}').encode())
    assert heard[1].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: t\r\n\r\n",
        OK + b"\r\nhello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO,
    ],
)
def test_every_kind_of_body(answer):
    with peer(answer, HELLO) as (url, _), client() as (http, _):
        assert http.request("GET", url).text == "hello"
        assert http.request("GET", url).text == "hello"


def test_an_answer_without_a_body_and_one_with_a_status():
    with (
        peer(
            b"HTTP/1.1 204 No Content\r\nServer: length\r\n\r\n",
            b"HTTP/1.1 503 Busy\r\nRetry-After: 3\r\nContent-Length: 2\r\n\r\nno",
        ) as (url, _),
        client() as (http, _),
    ):
        assert http.request("GET", url).content == b""
        busy = http.request("GET", url)
    assert (busy.status_code, busy.headers["retry-after"], busy.text) == (503, "3", "no")


@pytest.mark.parametrize("end", ["close", "idle"])
def test_a_connection_that_is_gone_is_opened_again_before_anything_is_sent(end):
    first = OK + b"Content-Length: 5\r\nConnection: close\r\n\r\nhello" if end == "close" else HELLO
    with peer(first, HELLO) as (url, heard), client(60.0 if end == "close" else -1.0) as (http, told):
        http.request("GET", url)
        http.request("GET", url)
    assert len(told) == len(heard) == 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (None, httpx.RemoteProtocolError),
        (b"nonsense\r\n\r\n", httpx.RemoteProtocolError),
        (OK + b"Content-Length: many\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", httpx.RemoteProtocolError),
        (OK + b"Content-Length: 9\r\nX: close\r\n\r\nhello", httpx.RemoteProtocolError),
    ],
)
def test_what_is_no_answer_is_the_librarys_error(answer, error):
    with peer(answer) as (url, heard), client() as (http, _), pytest.raises(error):
        http.request("POST", url, json={})
    assert len(heard) == 1  # never sent again


def test_no_answer_in_time_and_nobody_there():
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with client() as (http, _):
        with pytest.raises(httpx.ReadTimeout):
            http.request("GET", url, timeout=0.05)
        listener.close()
        with pytest.raises(httpx.ConnectError):
            http.request("GET", url)


def test_a_trace_can_refuse_a_new_connection():
    def refuse(event, info):
        raise RuntimeError("not now")

    with peer(HELLO, HELLO) as (url, heard), httpx.Client(transport=Transport(httpx, 60.0)) as http:
        with pytest.raises(RuntimeError, match="not now"):
            http.request("GET", url, extensions={"trace": refuse})
        assert http.request("GET", url).text == "hello"
        assert http.request("GET", url, extensions={"trace": refuse}).text == "hello"  # it was open
    assert len(heard) == 2
