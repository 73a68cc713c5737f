"""A server that fails on purpose, around whatever world answers; the tests of the clients share it. No test by itself.

A fault is what the server does with one request instead of answering.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from mcts_utils.envs.client import AgentGym
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs import env_spec

Fault = Callable[["Handler", Any], None]


class World(Protocol):
    """What answers behind the faults, such as one of toy_worlds.py."""

    id_field: str

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and answer of a request; the body of a GET is its query."""


class FaultyServer(ThreadingHTTPServer):
    """A world behind a handler that can be told to fail."""

    daemon_threads = True

    def __init__(self, make_world: Callable[[], World]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self._make_world = make_world
        self.world = make_world()
        self.requests: list[tuple[str, Any]] = []  # (path, body), in order of arrival
        self.connections = 0
        self.sockets: list[socket.socket] = []
        self.keep_alive = True
        self.faults: dict[str, list[Fault | None]] = {}  # by path: for its next requests
        self.heard = threading.Semaphore(0)  # counts the slow answers begun
        self.released = threading.Event()  # set at the end: lets the slow answers go

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    def actions(self) -> list[str]:
        """What was sent to /step."""
        return [body["action"] for path, body in self.requests if path == "/step"]

    def forget(self) -> None:
        """Close all sessions, as idle ones are closed."""
        self.world = self._make_world()

    def restart(self) -> None:
        """All connections break, and the world is a new one."""
        self.world = self._make_world()
        while self.sockets:
            try:
                self.sockets.pop().shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # closed already


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1
        self.server.sockets.append(self.connection)

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if not self.server.keep_alive:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        if status >= 500:
            self.close_connection = True  # as uvicorn: after a 500 only

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name, _, value = query.partition("=")
        body = {name: int(value)} if query else json.loads(sent or "null")
        self.server.requests.append((path, body))
        waiting = self.server.faults.get(path, [])
        fault = waiting.pop(0) if waiting else None
        if fault is drop_unheard:
            self.close_connection = True
            return
        status, result = self.server.world.act(path, body)
        if fault:
            fault(self, result)
        else:
            text = result if status >= 500 else json.dumps(result)
            self.answer(status, text.encode())

    do_GET = do_POST


def drop(handler: Handler, result: Any) -> None:
    """The action was executed, its answer is lost."""
    handler.close_connection = True


def drop_unheard(handler: Handler, result: Any) -> None:
    """The connection is closed before anything is executed."""


def slow(handler: Handler, result: Any) -> None:
    """No answer until the test is over."""
    handler.server.heard.release()
    handler.server.released.wait()
    handler.close_connection = True


def status(code: int) -> Fault:
    return lambda handler, result: handler.answer(code, b"Internal Server Error")


def body(text: str) -> Fault:
    return lambda handler, result: handler.answer(200, text.encode())


@contextmanager
def serving(make_world: Callable[[], World]) -> Iterator[FaultyServer]:
    """The server, in threads of this process."""
    server = FaultyServer(make_world)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


def connected(server: FaultyServer, env: str, grounding: bool = True, timeout: float = 30) -> AgentGym:
    """A client that waits for nothing between its tries."""
    return AgentGym(HttpSession(server.url, timeout=timeout, backoff=0), env_spec(env), grounding)
