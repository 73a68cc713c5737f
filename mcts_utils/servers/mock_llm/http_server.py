"""A small HTTP/1.1 server on one asyncio loop, for endpoints whose own CPU time must not show in a benchmark.

Whole requests in, whole answers out, connections kept alive; no chunked bodies, no routes, no TLS. A handler is called
on the loop's thread and answers when it likes.
"""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus

HEAD_END = b"\r\n\r\n"
BACKLOG = 1024  # connections that may wait to be accepted
PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Request(asyncio.Protocol):
    """One connection, with one request open at a time: its `method`, `path`, `headers` and `body`."""

    transport: asyncio.Transport

    def __init__(self, handler: Callable[[Request], None]) -> None:
        self._handler = handler
        self._buffer = bytearray()
        self._busy = False
        self.method = self.path = ""
        self.headers: dict[str, str] = {}  # names in lower case
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio.Protocol: a client is there."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio.Protocol: a part of a request."""
        self._buffer += data
        self._next()

    def _next(self) -> None:
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
        """Answer with JSON, and take the next request. On the loop's thread; a client that has gone is no error."""
        self._busy = False
        if self.transport.is_closing():
            return
        data = json.dumps(content).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{more}\r\n"
        )
        self.transport.write(head.encode("latin-1") + data)
        if self.headers.get("connection", "").lower() == "close":
            self.transport.close()
        else:
            self._next()

    def drop(self) -> None:
        """Close the connection without an answer."""
        self.transport.close()


class HttpServer:
    """Accepts connections on 127.0.0.1 and hands every request to `handle` of a subclass."""

    def __init__(self, port: int = 0) -> None:
        """Listen at once; requests are answered once `serve` runs.

        Raises:
            OSError, OverflowError: the port is in use, or is none.
        """
        # The protocol is named because asyncio turns Nagle's algorithm off only where it is.
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen(BACKLOG)
        except BaseException:
            self._listener.close()
            raise
        self.port: int = self._listener.getsockname()[1]
        self.loop = asyncio.new_event_loop()
        self._open: set[Request] = set()
        self._thread: threading.Thread | None = None
        self._ended = self.loop.create_future()

    def handle(self, exchange: Request) -> None:
        """One request; answer it now or later, on the loop's thread."""
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
            for exchange in self._open:
                exchange.transport.abort()
            await asyncio.sleep(0)  # the aborted connections' last callbacks

    def _connection(self) -> Request:
        self._open = {exchange for exchange in self._open if not exchange.transport.is_closing()}
        exchange = Request(self.handle)
        self.loop.call_soon(self._open.add, exchange)  # by then it has its transport
        return exchange

    def start(self) -> None:
        """Serve in a thread."""
        self._thread = threading.Thread(target=self.serve, name="light-server", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End `serve`, once it runs; from any thread and from a signal's handler."""
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._end)
        if self._thread is not None:
            self._thread.join()

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
