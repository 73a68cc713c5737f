"""A light HTTP/1.1 transport for httpx and for the openai client: a third of the CPU time of their own.

One thread sends one request and waits for its whole answer; connections are kept and used again. No HTTP/2, no proxies,
no streaming. Errors are the client library's, and it still does everything else: URLs, JSON, timeouts, decoding.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import threading
import time
from typing import Any

CHUNK = 1 << 16  # bytes read at once
HEAD_MOST = 1 << 17  # bytes of an answer's head
EMPTY = (204, 304)  # answers without a body


# What the socket says where the system's time limit is over; the last one under TLS.
LATE = (TimeoutError, BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Malformed(Exception):
    """What came is no HTTP answer."""


class Connection:
    """One connection; one request at a time."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(None)
        self._sock = sock
        self._limits: dict[int, float | None] = {}
        self._buffer = b""
        self.used = time.monotonic()
        self.keep = False  # may be used again

    def is_fresh(self, keep_alive: float) -> bool:
        """True if it was used just now, and the server has not closed it."""
        if time.monotonic() - self.used > keep_alive:
            return False
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return not poll.poll(0)  # an end of file can be read, and nothing else may be there

    def send(self, data: bytes, timeout: float | None) -> None:
        """Send a whole request."""
        self._limit(socket.SO_SNDTIMEO, timeout)
        self._sock.sendall(data)

    def receive(self, method: str, timeout: float | None) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Status, headers and body of the answer.

        Raises:
            OSError: the connection broke, or nothing came in time.
            Malformed: no HTTP.
        """
        self._limit(socket.SO_RCVTIMEO, timeout)
        status = 100
        while 100 <= status < 200:
            first, *lines = self._head().split(b"\r\n")
            status = _status(first)
        headers = [_header(line) for line in lines]
        known = {name.lower(): value.lower() for name, value in headers}
        self.keep = first.startswith(b"HTTP/1.1") and b"close" not in known.get(b"connection", b"")
        if method == "HEAD" or status in EMPTY:
            body = b""
        elif b"chunked" in known.get(b"transfer-encoding", b""):
            body = self._chunks()
        elif b"content-length" in known:
            body = self._exactly(_number(known[b"content-length"], 10))
        else:
            self.keep = False
            body = self._rest()
        self.used = time.monotonic()
        return status, headers, body

    def _limit(self, which: int, timeout: float | None) -> None:
        """Let the system watch the time: Python's own timeouts cost one more system call for every read and write."""
        if self._limits.get(which, 0.0) != timeout:
            self._limits[which] = timeout
            seconds, rest = divmod(timeout or 0.0, 1.0)  # 0 is no limit
            self._sock.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", int(seconds), int(rest * 1e6)))

    def _head(self) -> bytes:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > HEAD_MOST:
                raise Malformed("the answer's head does not end")
            self._more()
        head, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return head

    def _more(self) -> None:
        data = self._sock.recv(CHUNK)
        if not data:
            raise Malformed("the server closed the connection before its answer was whole")
        self._buffer += data

    def _exactly(self, size: int) -> bytes:
        parts, missing = [self._buffer[:size]], size - len(self._buffer)
        self._buffer = self._buffer[size:]
        while missing > 0:
            data = self._sock.recv(min(missing, 1 << 20))
            if not data:
                raise Malformed("the server closed the connection before its answer was whole")
            parts.append(data)
            missing -= len(data)
        return b"".join(parts)

    def _line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            self._more()
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        return line

    def _chunks(self) -> bytes:
        parts = []
        while size := _number(self._line().partition(b";")[0], 16):
            parts.append(self._exactly(size))
            self._line()
        while self._line():
            pass  # trailers
        return b"".join(parts)

    def _rest(self) -> bytes:
        parts = [self._buffer]
        while data := self._sock.recv(CHUNK):
            parts.append(data)
        return b"".join(parts)

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


class Transport:
    """What `Client(transport=...)` of httpx wants. Safe for threads: every request at once has its own connection."""

    def __init__(self, library: Any, keep_alive: float, context: ssl.SSLContext | None = None) -> None:
        """`library`: httpx or a twin of it, whose answers and errors are given. `keep_alive`: seconds of idleness."""
        self._library, self._keep_alive, self._context = library, keep_alive, context
        self._idle: dict[tuple[str, str, int], list[Connection]] = {}
        self._lock = threading.Lock()

    def handle_request(self, request: Any) -> Any:
        """One request. Its extension "trace" is told before a connection is opened, and may raise."""
        lib, body = self._library, request.read()
        timeouts = request.extensions.get("timeout", {})
        connection = self._connection(request, timeouts.get("connect"))
        try:
            try:
                connection.send(_head_of(request) + body, timeouts.get("write"))
            except LATE as error:
                raise lib.WriteTimeout(str(error), request=request) from error
            except OSError as error:
                raise lib.WriteError(str(error), request=request) from error
            try:
                status, headers, content = connection.receive(request.method, timeouts.get("read"))
            except LATE as error:
                raise lib.ReadTimeout(str(error), request=request) from error
            except Malformed as error:
                raise lib.RemoteProtocolError(str(error), request=request) from error
            except OSError as error:
                raise lib.ReadError(str(error), request=request) from error
        except BaseException:
            connection.close()
            raise
        if connection.keep:
            with self._lock:
                self._idle.setdefault(_origin(request), []).append(connection)
        else:
            connection.close()
        return lib.Response(status, headers=headers, content=content)

    def _connection(self, request: Any, timeout: float | None) -> Connection:
        """A connection that is open, or a new one."""
        origin = _origin(request)
        while True:
            with self._lock:
                idle = self._idle.get(origin)
                found = idle.pop() if idle else None
            if found is None:
                break
            if found.is_fresh(self._keep_alive):
                return found
            found.close()
        if trace := request.extensions.get("trace"):
            trace("connection.connect_tcp.started", {})
        lib, (scheme, host, port) = self._library, origin
        try:
            sock = socket.create_connection((host, port), timeout)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if scheme == "https":
                context = self._context or ssl.create_default_context()
                sock = context.wrap_socket(sock, server_hostname=host)
        except TimeoutError as error:
            raise lib.ConnectTimeout(str(error), request=request) from error
        except OSError as error:
            raise lib.ConnectError(str(error), request=request) from error
        return Connection(sock)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                connection.close()

    def __enter__(self) -> Transport:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _origin(request: Any) -> tuple[str, str, int]:
    url = request.url
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _head_of(request: Any) -> bytes:
    target = request.url.raw_path
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    lines += [b"%b: %b" % header for header in request.headers.raw]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _status(line: bytes) -> int:
    parts = line.split(b" ", 2)
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1."):
        raise Malformed(f"no HTTP answer: {line[:60]!r}")
    return _number(parts[1], 10)


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise Malformed(f"no header: {line[:60]!r}")
    return name, value.strip()


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise Malformed(f"no number: {text[:60]!r}")
    return number
