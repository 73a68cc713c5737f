"""Keep one connection to a server with `requests`. It is never replaced silently, since a session depends on it.

It retries nothing and knows no environment; http.py does.
"""

from __future__ import annotations

import ssl
from functools import lru_cache
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.certs import where
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url


class ConnectionGone(Exception):
    """The connection was closed before the request was sent."""


class SingleConnection(HTTPConnection):
    """A connection that connects once; urllib3 opens a closed one again."""

    _opened = False

    def connect(self) -> None:
        """Connect.

        Raises:
            ConnectionGone: not for the first time.
        """
        if self._opened:
            raise ConnectionGone
        self._opened = True
        super().connect()


class TlsConnection(SingleConnection, HTTPSConnection):
    """The same over TLS."""


@lru_cache(maxsize=1)
def certificates() -> ssl.SSLContext:
    """Return the trusted certificates, which all connections share, because loading them takes 20 ms."""
    return ssl.create_default_context(cafile=where())


class SingleAdapter(HTTPAdapter):
    """An adapter of `requests` with one connection to one server."""

    def __init__(self, base_url: str) -> None:
        """Open no connection yet."""
        super().__init__()
        url = parse_url(base_url)
        pool: HTTPConnectionPool
        if url.scheme == "https":
            pool = HTTPSConnectionPool(str(url.host), url.port, ssl_context=certificates())
            pool.ConnectionCls = TlsConnection
        else:
            pool = HTTPConnectionPool(str(url.host), url.port)
            pool.ConnectionCls = SingleConnection
        self._pool = pool

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> HTTPConnectionPool:
        """Return the pool, which `requests` would look up for each request."""
        return self._pool

    def cert_verify(self, *args: Any) -> None:
        """Load no certificates again; those of the shared context are required."""

    def close(self) -> None:
        """Close the connection."""
        self._pool.close()


def open_session(base_url: str) -> requests.Session:
    """Return a session of `requests` for one connection to the server of `base_url`, without proxies and .netrc.

    Its `send` raises ConnectionGone instead of opening a second connection.
    """
    session = requests.Session()
    session.trust_env = False
    adapter = SingleAdapter(base_url)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
