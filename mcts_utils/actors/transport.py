"""Carry the requests of the openai library over http.client, in two thirds of the CPU time of its own transport.

Plain HTTP to one server, without proxies and streams; endpoint.py leaves TLS and proxies to the library.
"""

from __future__ import annotations

import time
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

import httpx2  # the HTTP client of the openai library

from mcts_utils.envs.http import KEEP_ALIVE


class PooledTransport(httpx2.BaseTransport):
    """A transport for httpx2's `Client(transport=...)`, with kept connections. Safe for threads. It retries nothing."""

    def __init__(self, base_url: str) -> None:
        url = urlsplit(base_url)
        self._address = (str(url.hostname), url.port)
        self._idle: list[tuple[float, HTTPConnection]] = []  # (seconds of the monotonic clock, connection)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return the whole answer.

        Raises:
            httpx2.TimeoutException: no connection or no answer in time.
            httpx2.TransportError: the connection failed, or the answer is not HTTP.
        """
        connection = None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw}
        try:
            connection = self._connection(request.extensions.get("timeout", {}))
            connection.request(request.method, request.url.raw_path.decode("ascii"), request.read(), headers)
            answer = connection.getresponse()
            content = answer.read()
        except BaseException as error:
            if connection is not None:
                connection.close()
            if not isinstance(error, (OSError, HTTPException)):
                raise
            kind = httpx2.TimeoutException if isinstance(error, TimeoutError) else httpx2.TransportError
            raise kind(str(error) or type(error).__name__, request=request) from error
        if not answer.will_close:
            self._idle.append((time.monotonic(), connection))
        return httpx2.Response(answer.status, headers=answer.getheaders(), content=content)

    def _connection(self, limits: dict[str, Any]) -> HTTPConnection:
        """Return an idle connection or a new one. `limits`: httpx2's time limits, in seconds."""
        connection, read = self._idle_connection(), limits.get("read")
        if connection is None:
            connection = HTTPConnection(*self._address, timeout=limits.get("connect"))
            connection.connect()
        if connection.timeout != read:
            connection.timeout = read
            connection.sock.settimeout(read)
        return connection

    def _idle_connection(self) -> HTTPConnection | None:
        """Return the connection that was used last, unless the server may have closed it."""
        while self._idle:
            try:
                used, connection = self._idle.pop()
            except IndexError:
                break  # another thread took it
            if time.monotonic() - used < KEEP_ALIVE:
                return connection
            connection.close()
        return None

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop()[1].close()
