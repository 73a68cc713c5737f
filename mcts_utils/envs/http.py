"""One HTTP session with an AgentGym server: JSON in, JSON out, errors as EnvError.

It knows how the servers fail (an "error" in a 200 body, 422 for our own fault, a dead socket after a 500) and nothing
of any environment. A POST that may have reached the server is never sent again.
"""

from __future__ import annotations

import math
import random
import time
from functools import lru_cache
from typing import Any

import httpx

from mcts_utils.envs.wire import Transport
from mcts_utils.types import EnvError, InputError

TIMEOUT = 60.0  # seconds for an answer; a public server builds an index inside its first requests
CONNECT_TIMEOUT = 5.0  # seconds
RESENDS = 3  # of one request
BACKOFF = 0.2  # seconds before the first resend, doubled each time, with jitter
KEEP_ALIVE = 4.0  # seconds; under uvicorn's 5, so that we drop an idle connection before the server does
TEXT_SHOWN = 300  # characters of an answer quoted in an error

ErrorTypes = type[Exception] | tuple[type[Exception], ...]
UNSENT = (httpx.ConnectError, httpx.ConnectTimeout)  # the request cannot have reached the server


class ConnectionLost(EnvError):
    """The connection broke or no answer came in time: whether the request was executed is unknown."""

    slow = False  # no answer came in time: the request may still be executed


class NotConnected(ConnectionLost):
    """The kept-alive connection is gone and the request was not sent; `expected`: unused for long, or not kept."""

    def __init__(self, text: str, expected: bool) -> None:
        super().__init__(text)
        self.expected = expected


class EnvAnswer(EnvError):
    """The server answered 200 with {"error": text}."""


class EnvStatus(EnvError):
    """The server answered with another status than 200."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


@lru_cache(maxsize=1)
def ssl_context() -> Any:
    """Loading the certificates takes longer than any request, so all sessions share them."""
    return httpx.create_ssl_context(trust_env=False)


def checked_url(base_url: str) -> str:
    """The base URL without a trailing slash.

    Raises:
        InputError: if it is no http(s) URL with a host.
    """
    try:
        parts = httpx.URL(base_url.strip())
        usable = parts.scheme in ("http", "https") and parts.host != "" and 0 < (parts.port or 80) < 65536
    except httpx.InvalidURL:
        usable = False
    if not usable:
        raise InputError(f"env_server_base {base_url!r} is no URL like http://127.0.0.1:26001")
    return base_url.strip().rstrip("/")


class HttpSession:
    """Requests to one server over kept-alive connections. One user at a time."""

    def __init__(self, base_url: str, timeout: float = TIMEOUT, backoff: float = BACKOFF) -> None:
        self.base_url = checked_url(base_url)
        self._arguments = (timeout, backoff)
        self._timeout = httpx.Timeout(timeout, connect=min(timeout, CONNECT_TIMEOUT))
        self._backoff = backoff
        self._jitter = random.Random()  # no result depends on it: waiting times only
        self._client: httpx.Client | None = None
        self._used = -math.inf  # when the last answer came, seconds of the monotonic clock
        self._one_request = False  # the last answer announced the connection's end

    @property
    def is_open(self) -> bool:
        """True if a connection may be open."""
        return self._client is not None

    def another(self) -> HttpSession:
        """A session with the same server and settings, over a connection of its own."""
        return HttpSession(self.base_url, *self._arguments)

    def get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        """The JSON answer of a GET, sent again (RESENDS times) when the connection fails.

        Raises:
            EnvError: no usable answer.
        """
        return self._json("GET", path, httpx.TransportError, params=params)

    def post(
        self, path: str, body: dict[str, Any], reconnect: bool = True, timeout: float | None = None
    ) -> Any:
        """The JSON answer of a POST. Only a failed connect is tried again (RESENDS times).

        Args:
            reconnect: False sends it over the connection of the request before, or not at all.
            timeout: seconds, if not the session's.

        Raises:
            NotConnected: `reconnect` is False and that connection is gone.
            ConnectionLost: the connection failed.
            EnvAnswer: {"error": ...} in a 200 answer.
            EnvStatus: any other status.
            EnvError: no JSON.
        """
        content: dict[str, Any] = {"json": body}
        if timeout is not None:
            content["timeout"] = timeout
        if not reconnect:
            content["extensions"] = {"trace": self._refuse_to_connect}
        return self._json("POST", path, UNSENT, **content)

    def pause(self, attempt: int) -> None:
        """Wait before try number `attempt` + 1: exponential back-off, with jitter so that workers spread out."""
        time.sleep(self._backoff * 2**attempt * self._jitter.uniform(0.5, 1.5))

    def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _refuse_to_connect(self, event: str, info: dict[str, Any]) -> None:
        """httpx calls this on every event of a request; an exception stops it before anything is sent."""
        if event == "connection.connect_tcp.started":
            idle = time.monotonic() - self._used > KEEP_ALIVE / 2
            raise NotConnected(f"{self.base_url}: the connection is gone", idle or self._one_request)

    def _json(self, method: str, path: str, resend: ErrorTypes, **content: Any) -> Any:
        response = self._send(method, path, resend, **content)
        where = f"{method} {self.base_url}{path}"
        if response.status_code != 200:
            if response.status_code >= 500:
                self.close()  # the server closes the socket after it
            code = response.status_code
            raise EnvStatus(f"{where}: HTTP {code}: {shown(response.text)}", code)
        try:
            answer = response.json()
        except ValueError:
            raise EnvError(f"{where}: the answer is no JSON: {shown(response.text)}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise EnvAnswer(f"{where}: {shown(str(answer['error']))}")
        return answer

    def _send(self, method: str, path: str, resend: ErrorTypes, **content: Any) -> httpx.Response:
        for attempt in range(RESENDS + 1):
            try:
                response = self._connected().request(method, self.base_url + path, **content)
                self._used = time.monotonic()
                self._one_request = "close" in response.headers.get("connection", "").lower()
                return response
            except NotConnected:
                self.close()
                raise
            except httpx.RequestError as error:
                self.close()
                # A server too slow to answer gets no second copy of the same work.
                if (
                    not isinstance(error, resend)
                    or isinstance(error, httpx.ReadTimeout)
                    or attempt == RESENDS
                ):
                    reason = str(error) or type(error).__name__
                    lost = ConnectionLost(f"{method} {self.base_url}{path}: {reason}")
                    lost.slow = isinstance(error, httpx.ReadTimeout)
                    raise lost from error
            self.pause(attempt)
        raise AssertionError("unreachable")

    def _connected(self) -> httpx.Client:
        if self._client is None:
            # trust_env off: a proxy of the machine has no business between us and the environment server.
            transport: Any = Transport(httpx, KEEP_ALIVE, ssl_context())
            self._client = httpx.Client(timeout=self._timeout, transport=transport, trust_env=False)
        return self._client


def shown(text: str) -> str:
    """The text on one line, cut to TEXT_SHOWN characters."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[:TEXT_SHOWN] + "..."
