"""A small HTTP/1.1 server on one asyncio loop, for endpoints whose own CPU time must not affect a benchmark.

It reads whole requests, sends whole answers and keeps connections alive; no chunked bodies, no routes, no TLS. A
handler is called on the loop's thread and may answer later. A request that is too large, too slow, for another host or
from a web page of another machine never reaches it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Mapping
from http import HTTPStatus

from mcts_utils.servers.sockets import (
    BACKLOG,
    BODY_BYTES,
    HEAD_BYTES,
    SLOW_SECONDS,
    is_foreign,
    is_local,
    listen,
)

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
        self._start_limit()

    def _start_limit(self) -> None:
        self._limit = asyncio.get_running_loop().call_later(SLOW_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._limit.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._busy and len(self._buffer) > BODY_BYTES:
            self.transport.pause_reading()
        self._handle_next()

    def _handle_next(self) -> None:
        """Hand the next request to the handler if it has arrived as a whole and no other one is open."""
        if self._busy or not self._buffer:
            return
        if self._limit.cancelled():
            self._start_limit()
        end = self._buffer.find(HEAD_END, 0, HEAD_BYTES)
        if end < 0:
            if len(self._buffer) > HEAD_BYTES:
                self._refuse(431, f"a request's head may have {HEAD_BYTES} bytes")
            return
        line, *fields = self._buffer[:end].decode("latin-1").split("\r\n")
        pairs = (field.partition(":") for field in fields)
        self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        length = self.headers.get("content-length", "0")
        if line.count(" ") != 2 or not re.fullmatch("[0-9]+", length) or "transfer-encoding" in self.headers:
            return self._refuse(400, "not an HTTP/1.1 request with a Content-Length")
        if len(length) > 9 or int(length) > BODY_BYTES:
            return self._refuse(413, f"a request's body may have {BODY_BYTES} bytes")
        begin = end + len(HEAD_END)
        whole = begin + int(length)
        if len(self._buffer) < whole:
            return
        self.method, self.path, _ = line.split(" ")
        self.body = bytes(self._buffer[begin:whole])
        del self._buffer[:whole]
        self._limit.cancel()
        self._busy = True
        if not is_local(self.headers.get("host", "")) or is_foreign(self.headers.get("origin", "")):
            return self._refuse(403, "only programs of this machine are answered")
        self._handler(self)

    def _refuse(self, status: int, text: str) -> None:
        """Answer with an error and close the connection."""
        self.headers = {"connection": "close"}
        self.send(status, {"error": {"message": text, "type": "error", "code": status}})

    def send(self, status: int, content: object, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON and take the next request; does nothing if the client has left. On the loop's thread.

        Bytes are sent as they are.
        """
        self._busy = False
        if self.transport.is_closing():
            return
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        fields = {"Content-Type": "application/json", "Content-Length": len(data), **(headers or {})}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        head = f"HTTP/1.1 {status} {PHRASES.get(status, '')}\r\n{lines}\r\n"
        self.transport.write(head.encode("latin-1") + data)
        if self.headers.get("connection", "").lower() == "close":
            self.transport.close()
        else:
            self.transport.resume_reading()
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
