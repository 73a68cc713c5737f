"""Carry the requests of the openai library over http.client, in two thirds of the CPU time of its own transport.

Plain HTTP to one server, without proxies and streams; TLS and proxies are left to the library.
"""

from __future__ import annotations

import ipaddress
import re
import time
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

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


def better_address(base_url: str) -> str:
    """Return a hint, such as "; try http://127.0.0.1:8000/v1", for a base URL without a version, or ""."""
    plain = re.sub(r"/(?:chat/completions|completions|models)?/*$", "", base_url)
    better = plain if re.search(r"/v\d", urlsplit(plain).path) else f"{plain}/v1"
    return "" if better == base_url.rstrip("/") else f"; try {better}"


def is_loopback(host: str) -> bool:
    """Return True for a name or an address of this machine."""
    try:
        return (address := ipaddress.ip_address(host)).is_loopback or address.is_unspecified
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def light_client(base_url: str) -> Any:
    """Return a client over PooledTransport for plain HTTP without a proxy; else None, for the library's own one.

    Requests to this machine go through no proxy.
    """
    import openai  # half a second, which the other functions do not need

    url = urlsplit(base_url)
    local = is_loopback(url.hostname or "")
    proxied = "http" in getproxies() and not proxy_bypass(url.netloc)
    if url.scheme == "http" and (local or not proxied):
        return openai.DefaultHttpxClient(transport=PooledTransport(base_url))
    return openai.DefaultHttpxClient(trust_env=False) if local else None
