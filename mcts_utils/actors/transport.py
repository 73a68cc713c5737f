"""Carry the requests of the openai library over urllib3, which takes less CPU time than the library's own transport.

Plain HTTP to one server, without proxies and streams; endpoint.py leaves TLS and proxies to the library.
"""

from __future__ import annotations

import httpx2  # the HTTP client of the openai library
from urllib3 import Timeout, connection_from_url
from urllib3.exceptions import HTTPError, TimeoutError


class PooledTransport(httpx2.BaseTransport):
    """A transport for httpx2's `Client(transport=...)`. Safe for threads. It retries nothing."""

    def __init__(self, base_url: str, connections: int) -> None:
        """`connections`: kept open at most; more are opened when they are needed."""
        self._pool = connection_from_url(base_url, maxsize=connections)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send one request and return the whole answer.

        Raises:
            httpx2.TimeoutException: no connection or no answer in time.
            httpx2.TransportError: the connection failed, or the answer is not HTTP.
        """
        limits = request.extensions.get("timeout", {})
        try:
            answer = self._pool.urlopen(
                request.method,
                request.url.raw_path.decode("ascii"),
                body=request.read(),
                headers={
                    name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw
                },
                retries=False,
                redirect=False,
                timeout=Timeout(connect=limits.get("connect"), read=limits.get("read")),
                decode_content=False,  # httpx2 decodes
            )
        except TimeoutError as error:
            raise httpx2.TimeoutException(str(error), request=request) from error
        except HTTPError as error:
            raise httpx2.TransportError(str(error), request=request) from error
        return httpx2.Response(answer.status, headers=list(answer.headers.items()), content=answer.data)

    def close(self) -> None:
        """Close the idle connections."""
        self._pool.close()
