"""Send HTTP requests to an AgentGym server: JSON in, JSON out, failures as EnvError.

It knows how the servers fail (an "error" in a 200 body, 422 for a wrong request, a dead socket after a 500), but no
environment. A POST that may have reached the server is never sent again. The connection is in connection.py.
"""

from __future__ import annotations

import json
import math
import random
import time
from typing import Any

import requests
from urllib3.exceptions import (
    ConnectTimeoutError,
    LocationParseError,
    NewConnectionError,
    ReadTimeoutError,
)
from urllib3.util import parse_url

from mcts_utils.envs.connection import ConnectionGone, open_session
from mcts_utils.types import EnvError, InputError

TIMEOUT = 60.0  # seconds for an answer; a public server builds an index during its first requests
CONNECT_TIMEOUT = 5.0  # seconds
RESENDS = 3  # of one request
BACKOFF = 0.2  # seconds before the first resend, doubled each time, with jitter
# Seconds; less than uvicorn's 5, so that an idle connection is closed here before it is there.
KEEP_ALIVE = 4.0
TEXT_SHOWN = 300  # characters of an answer quoted in an error
UNSENT = (NewConnectionError, ConnectTimeoutError)  # the request cannot have reached the server


class ConnectionLost(EnvError):
    """The connection broke or no answer came in time, so that it is unknown whether the request was executed."""

    slow = False  # no answer came in time: the request may still be executed


class NotConnected(ConnectionLost):
    """The kept-alive connection is gone and the request was not sent."""

    def __init__(self, text: str, expected: bool) -> None:
        """`expected`: the connection was idle for long, or the server had announced its end."""
        super().__init__(text)
        self.expected = expected


class EnvAnswer(EnvError):
    """The server answered 200 with {"error": text}."""


class EnvStatus(EnvError):
    """The server answered with another status than 200."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


def checked_url(base_url: str) -> str:
    """Return the base URL without a trailing slash.

    Raises:
        InputError: it is not an http(s) URL with a host.
    """
    try:
        parts = parse_url(base_url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.host)
    except LocationParseError:
        usable = False
    if not usable:
        raise InputError(f"env_server_base {base_url!r} is no URL like http://127.0.0.1:26001")
    return base_url.strip().rstrip("/")


class HttpSession:
    """Requests to one server over a kept connection, for one user at a time."""

    def __init__(self, base_url: str, timeout: float = TIMEOUT, backoff: float = BACKOFF) -> None:
        """`timeout`: seconds for an answer. `backoff`: seconds before the first resend.

        Raises:
            InputError: as checked_url.
        """
        self.base_url = checked_url(base_url)
        self._timeout, self._backoff = timeout, backoff
        self._jitter = random.Random()  # for waiting times only: no result depends on it
        self._template = requests.Request("GET", self.base_url).prepare()
        self._session: requests.Session | None = None  # of the connection
        self._last_answer = -math.inf  # seconds of the monotonic clock
        self._closing = False  # the last answer announced the connection's end

    @property
    def is_open(self) -> bool:
        """Return True if a connection may be open."""
        return self._session is not None

    def another(self) -> HttpSession:
        """Return a session with the same server and settings, over a connection of its own."""
        return HttpSession(self.base_url, self._timeout, self._backoff)

    def get(self, path: str, params: dict[str, Any] | None = None) -> Any:
        """Return the JSON answer to a GET, which is sent again (at most RESENDS times) when the connection fails.

        Raises:
            EnvError: no usable answer.
        """
        request = self._request("GET", path)
        request.prepare_url(str(request.url), params)
        return self._json(request, repeatable=True)

    def post(
        self, path: str, body: dict[str, Any], reconnect: bool = True, timeout: float | None = None
    ) -> Any:
        """Return the JSON answer to a POST. Only a failed connect is tried again (at most RESENDS times).

        Args:
            reconnect: False sends it over the connection of the previous request, or not at all.
            timeout: seconds; None: the session's.

        Raises:
            NotConnected: `reconnect` is False and that connection is gone.
            ConnectionLost: the connection failed.
            EnvAnswer: {"error": ...} in a 200 answer.
            EnvStatus: any other status than 200.
            EnvError: the answer is not JSON.
        """
        request = self._request("POST", path)
        request.prepare_body(None, None, body)
        return self._json(request, reconnect, timeout)

    def pause(self, attempt: int) -> None:
        """Wait after try number `attempt` (from 0): exponential back-off, with jitter so that workers spread out."""
        time.sleep(self._backoff * 2**attempt * self._jitter.uniform(0.5, 1.5))

    def close(self) -> None:
        """Close the connection. The next request opens a new one."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def _request(self, method: str, path: str) -> requests.PreparedRequest:
        """Return a request without a body. To prepare each one anew would double the CPU time of a step."""
        request = self._template.copy()
        request.method, request.url = method, str(self._template.url).rstrip("/") + path
        return request

    def _json(
        self,
        request: requests.PreparedRequest,
        reconnect: bool = True,
        timeout: float | None = None,
        repeatable: bool = False,
    ) -> Any:
        """Return the JSON answer to a request. `repeatable`: it may reach the server more than once."""
        response = self._send(request, reconnect, timeout or self._timeout, repeatable)
        where, code = f"{request.method} {request.url}", response.status_code
        text = response.content.decode("utf-8", "replace")
        if code != 200:
            if code >= 500:
                self.close()  # the server closes the socket after it
            raise EnvStatus(f"{where}: HTTP {code}: {shown(text)}", code)
        try:
            answer = json.loads(response.content)
        except ValueError:
            raise EnvError(f"{where}: the answer is no JSON: {shown(text)}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise EnvAnswer(f"{where}: {shown(str(answer['error']))}")
        return answer

    def _send(
        self, request: requests.PreparedRequest, reconnect: bool, timeout: float, repeatable: bool
    ) -> requests.Response:
        for attempt in range(RESENDS + 1):
            try:
                response = self._exchange(request, reconnect, timeout)
            except requests.RequestException as error:
                self.close()
                cause = root_cause(error)
                slow = isinstance(cause, ReadTimeoutError)
                # A server that is too slow to answer is not sent the same work twice.
                if slow or attempt == RESENDS or not (repeatable or isinstance(cause, UNSENT)):
                    texts = [part for part in cause.args if isinstance(part, str)] or [str(cause)]
                    text = (
                        texts[-1].partition("): ")[2] or texts[-1]
                    )  # urllib3 begins with its connection's class
                    lost = ConnectionLost(f"{request.method} {request.url}: {shown(text)}")
                    lost.slow = slow
                    raise lost from error
            except BaseException:
                self.close()  # an interrupted request must not be followed by another on its connection
                raise
            else:
                self._last_answer = time.monotonic()
                self._closing = "close" in response.headers.get("connection", "").lower()
                return response
            self.pause(attempt)
        raise AssertionError("unreachable")

    def _exchange(
        self, request: requests.PreparedRequest, reconnect: bool, timeout: float
    ) -> requests.Response:
        """Send a request once, over the kept connection, or over a new one if that is gone and `reconnect`.

        Raises:
            NotConnected: it is gone, and not `reconnect`.
            requests.RequestException: no answer.
        """
        idle = time.monotonic() - self._last_answer
        if idle > KEEP_ALIVE:
            self.close()
        limits = (min(timeout, CONNECT_TIMEOUT), timeout)
        if self._session is not None:
            try:
                return self._session.send(request, timeout=limits, allow_redirects=False, proxies={})
            except ConnectionGone:
                self.close()
        if not reconnect:
            raise NotConnected(
                f"{self.base_url}: the connection is gone", idle > KEEP_ALIVE / 2 or self._closing
            )
        self._session = open_session(self.base_url)
        return self._session.send(request, timeout=limits, allow_redirects=False, proxies={})


def root_cause(error: Exception) -> Exception:
    """Return the error that `requests` and urllib3 wrap."""
    while inner := [e for e in (getattr(error, "reason", None), *error.args) if isinstance(e, Exception)]:
        error = inner[0]
    return error


def shown(text: str) -> str:
    """Return the text on one line, cut to TEXT_SHOWN characters."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[:TEXT_SHOWN] + "..."
