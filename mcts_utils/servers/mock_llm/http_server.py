"""A small HTTP/1.1 server on one asyncio loop, for endpoints whose own CPU time must not affect a benchmark.

It reads whole requests, sends whole answers and keeps connections alive; no chunked bodies, no routes, no TLS. A
handler is called on the loop's thread and may answer later.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus

from mcts_utils.servers.sockets import BACKLOG, listen

HEAD_END = b"\r\n\r\n"
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Request(asyncio.Protocol):
    """A connection and its open request: `method`, `path`, `headers` and `body`. One request is open at a time."""

    transport: asyncio.Transport

    def __init__(self, handler: Callable[[Request], None]) -> None:
        self._handler = handler
        self._buffer = bytearray()
        self._busy = False
        self.method = self.path = ""
        self.headers: dict[str, str] = {}  # names in lower case
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._handle_next()

    def _handle_next(self) -> None:
        """Hand the next request to the handler if it has arrived as a whole and no other one is open."""
        if self._busy or (end := self._buffer.find(HEAD_END)) < 0:
            return
        lines = self._buffer[:end].decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        begin = end + len(HEAD_END)
        try:
            size = int(headers.get("content-length") or 0)
            self.method, self.path, _ = lines[0].split(" ")
        except ValueError:
            self.transport.close()
            return
        if len(self._buffer) < begin + size:
            return
        self.headers, self.body = headers, bytes(self._buffer[begin : begin + size])
        del self._buffer[: begin + size]
        self._busy = True
        self._handler(self)

    def send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON and take the next request; does nothing if the client has left. On the loop's thread."""
        self._busy = False
        if self.transport.is_closing():
            return
        data = json.dumps(content).encode()
        extra = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{extra}\r\n"
        )
        self.transport.write(head.encode("latin-1") + data)
        if self.headers.get("connection", "").lower() == "close":
            self.transport.close()
        else:
            self._handle_next()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.transport.close()


class HttpServer:
    """A server on 127.0.0.1 that hands every request to the subclass's `handle`."""

    def __init__(self, port: int = 0) -> None:
        """Listen at once; requests are answered once `serve` runs. Port 0 takes a free one.

        Raises:
            OSError: the port is in use.
            OverflowError: the port number is out of range.
        """
        self._listener = listen("127.0.0.1", port)
        self.port: int = self._listener.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self._open: set[Request] = set()
        self._thread: threading.Thread | None = None
        self._ended = self.loop.create_future()

    def handle(self, request: Request) -> None:
        """Answer a request, now or later, on the loop's thread."""
        raise NotImplementedError

    def serve(self) -> None:
        """Answer requests in this thread until `stop`, or Ctrl-C."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._serve())
        finally:
            self.loop.close()

    async def _serve(self) -> None:
        server = await self.loop.create_server(self._connection, sock=self._listener, backlog=BACKLOG)
        try:
            await self._ended
        finally:
            server.close()
            for request in self._open:
                request.transport.abort()
            await asyncio.sleep(0)  # runs the aborted connections' last callbacks

    def _connection(self) -> Request:
        self._open = {request for request in self._open if not request.transport.is_closing()}
        request = Request(self.handle)
        self.loop.call_soon(self._open.add, request)  # it has its transport by then
        return request

    def start(self) -> None:
        """Serve in a thread of this process."""
        self._thread = threading.Thread(target=self.serve, name="mock-llm", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End `serve`; may be called from any thread and from a signal handler."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._end)
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
