"""Send HTTP requests to an AgentGym server: JSON in, JSON out, failures as EnvError.

It knows how the servers fail (an "error" in a 200 body, 422 for a wrong request, a dead socket after a 500) and how
proxies do (502, 503, 504, 520, a body that is not JSON), but no environment. A POST that may have reached the server is
never sent again. The connection is in connection.py, the waiting in patience.py.
"""

from __future__ import annotations

import json
import math
import random
from itertools import count
from threading import Lock
from typing import Any

import requests
from urllib3.exceptions import LocationParseError, ReadTimeoutError
from urllib3.util import parse_url

from mcts_utils import patience
from mcts_utils.config import without_password
from mcts_utils.envs.connection import ConnectionGone, open_session
from mcts_utils.envs.errors import (
    TRANSIENT,
    UNSENT,
    ConnectionLost,
    EnvAnswer,
    EnvStatus,
    NotConnected,
    ServerGone,
    Unavailable,
    root_cause,
    shown,
)
from mcts_utils.patience import MAX_PAUSE, ServiceWatch, retry_after
from mcts_utils.types import EnvError, InputError

TIMEOUT = 60.0  # seconds for an answer; a public server builds an index during its first requests
CONNECT_TIMEOUT = 5.0  # seconds
RESENDS = 3  # of one request
BACKOFF = 0.2  # seconds before the first resend, doubled each time, with jitter
# Seconds; less than uvicorn's 5, so that an idle connection is closed here before it is there.
KEEP_ALIVE = 4.0


def checked_url(base_url: str) -> str:
    """Return the base URL without a trailing slash; raise InputError if it is not an http(s) URL with a host."""
    try:
        parts = parse_url(base_url.strip())
        usable = parts.scheme in ("http", "https") and bool(parts.host)
    except LocationParseError:
        usable = False
    if not usable:
        raise InputError(
            f"env_server_base {without_password(base_url)!r} is no URL like http://127.0.0.1:26001"
        )
    return base_url.strip().rstrip("/")


_watches: dict[str, ServiceWatch] = {}  # by URL, one for a process
_watching = Lock()


def watch(base_url: str) -> ServiceWatch:
    """Return the watch of a server, which all its sessions share."""
    with _watching:
        made = ServiceWatch(f"the environment server {base_url}", "SERVER_PATIENCE", ServerGone)
        return _watches.setdefault(base_url, made)


class HttpSession:
    """Requests to one server over a kept connection, for one user at a time."""

    def __init__(
        self, base_url: str, timeout: float = TIMEOUT, backoff: float = BACKOFF, patience: float = 0.0
    ) -> None:
        """Open no connection yet.

        Args:
            timeout: seconds for an answer.
            backoff: seconds before the first resend.
            patience: seconds for which a server that fails is waited for.

        Raises:
            InputError: as checked_url.
        """
        self._url = checked_url(base_url)
        self.base_url = without_password(self._url)  # as errors show it
        self._timeout, self._backoff, self._patience = timeout, backoff, patience
        self.watch = watch(self.base_url)
        self._failures = 0  # in a row, since the last answer
        self._jitter = random.Random()  # for waiting times only: no result depends on it
        self._template = requests.Request("GET", self._url).prepare()  # its headers have the password
        self._template.url = self.base_url
        self._session: requests.Session | None = None  # of the connection
        self._last_answer = -math.inf  # seconds of the monotonic clock
        self._closing = False  # the last answer announced the connection's end

    @property
    def is_open(self) -> bool:
        """Return True if a connection may be open."""
        return self._session is not None

    def another(self) -> HttpSession:
        """Return a session with the same server and settings, over a connection of its own."""
        return HttpSession(self._url, self._timeout, self._backoff, self._patience)

    def get(self, path: str, params: dict[str, Any] | None = None, timeout: float | None = None) -> Any:
        """Return the JSON answer to a GET, which is sent again (at most RESENDS times) when the connection fails.

        Args:
            timeout: seconds; None: the session's.

        Raises:
            EnvError: no usable answer.
        """
        request = self._request("GET", path)
        request.prepare_url(str(request.url), params)
        return self._repeated(request, repeatable=True, timeout=timeout)

    def get_patiently(self, path: str) -> Any:
        """Return the JSON answer to a GET, which is sent again until the patience with the server ends.

        Raises:
            EnvError: no usable answer; ServerGone if the server answers nobody.
        """
        since = 0.0
        for attempt in count():
            try:
                return self.get(path)
            except ConnectionLost as error:
                since = since or patience.now()
                if self.patience_ends(since, error):
                    raise
                self.pause(attempt, error.retry_after)
        raise AssertionError("unreachable")

    def post(
        self, path: str, body: dict[str, Any], reconnect: bool = True, timeout: float | None = None
    ) -> Any:
        """Return the JSON answer to a POST. Only a failed connect is tried again (at most RESENDS times).

        Args:
            reconnect: False sends it over the connection of the previous request, or not at all.
            timeout: seconds; None: the session's.

        Raises:
            NotConnected: `reconnect` is False and that connection is gone.
            ConnectionLost: the connection failed, or the answer is one of Unavailable.
            EnvAnswer: {"error": ...} in a 200 answer.
            EnvStatus: any other status than 200.
        """
        request = self._request("POST", path)
        request.prepare_body(None, None, body)
        return self._repeated(request, repeatable=False, reconnect=reconnect, timeout=timeout)

    def pause(self, attempt: int, retry_after: float = 0.0) -> None:
        """Wait after try number `attempt` (from 0), with jitter, at most MAX_PAUSE; doubled while nothing is answered.

        Args:
            retry_after: seconds that the server asks for; they are waited as far as `patience` allows.
        """
        seconds = (
            self._backoff * 2 ** min(attempt, max(self._failures - 1, 0), 10) * self._jitter.uniform(0.5, 1.5)
        )
        patience.pause(max(min(seconds, MAX_PAUSE), min(retry_after, self._patience)))

    def patience_ends(self, since: float, error: EnvError) -> bool:
        """Return True if a call that has failed since then (monotonic seconds) is not to be tried any more.

        Raises:
            ServerGone: the server answers nobody.
        """
        self.watch.require_alive(error, self._patience)
        return patience.now() - since >= self._patience

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

    def _repeated(
        self,
        request: requests.PreparedRequest,
        repeatable: bool,
        reconnect: bool = True,
        timeout: float | None = None,
    ) -> Any:
        """Return the JSON answer to a request. `repeatable`: it may reach the server more than once."""
        for attempt in range(RESENDS + 1):
            try:
                answer = self._answer(request, reconnect, timeout or self._timeout)
            except NotConnected:
                raise
            except ConnectionLost as lost:
                self._failures += 1
                self.watch.failed(lost, self._patience)
                # A server that is too slow to answer is not sent the same work twice.
                if lost.slow or attempt == RESENDS or not (repeatable or lost.unsent):
                    raise
                self.pause(attempt, lost.retry_after)
            except EnvError:
                self._answered()
                raise
            else:
                self._answered()
                return answer
        raise AssertionError("unreachable")

    def _answered(self) -> None:
        self._failures = 0
        self.watch.answered()

    def _answer(self, request: requests.PreparedRequest, reconnect: bool, timeout: float) -> Any:
        """Return the JSON answer to a request that is sent once."""
        response = self._response(request, reconnect, timeout)
        where, code = f"{request.method} {request.url}", response.status_code
        text = response.content.decode("utf-8", "replace")
        if code >= 500:
            self.close()  # the server closes the socket after it
        if code in TRANSIENT:
            unavailable = Unavailable(f"{where}: HTTP {code}: {shown(text)}")
            unavailable.retry_after = retry_after(response.headers) or 0.0
            raise unavailable
        if code != 200:
            raise EnvStatus(f"{where}: HTTP {code}: {shown(text)}", code)
        try:
            answer = json.loads(response.content)
        except ValueError:
            raise Unavailable(f"{where}: the answer is no JSON: {shown(text)}") from None
        if isinstance(answer, dict) and "error" in answer:
            raise EnvAnswer(f"{where}: {shown(str(answer['error']))}")
        return answer

    def _response(
        self, request: requests.PreparedRequest, reconnect: bool, timeout: float
    ) -> requests.Response:
        """Return the answer to a request; raise ConnectionLost where there is none."""
        try:
            response = self._exchange(request, reconnect, timeout)
        except requests.RequestException as error:
            self.close()
            cause = root_cause(error)
            texts = [part for part in cause.args if isinstance(part, str)] or [str(cause)]
            text = texts[-1].partition("): ")[2] or texts[-1]  # urllib3 begins with its connection's class
            lost = ConnectionLost(f"{request.method} {request.url}: {shown(text)}")
            lost.slow, lost.unsent = isinstance(cause, ReadTimeoutError), isinstance(cause, UNSENT)
            raise lost from error
        except BaseException:
            self.close()  # an interrupted request must not be followed by another on its connection
            raise
        self._last_answer = patience.now()
        self._closing = "close" in response.headers.get("connection", "").lower()
        return response

    def _exchange(
        self, request: requests.PreparedRequest, reconnect: bool, timeout: float
    ) -> requests.Response:
        """Send a request once, over the kept connection, or over a new one if that is gone and `reconnect`.

        Raises:
            NotConnected: it is gone, and not `reconnect`.
            requests.RequestException: no answer.
        """
        idle = patience.now() - self._last_answer
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
