"""The ways in which an environment server fails, as exceptions. It sends nothing and waits for nothing."""

from __future__ import annotations

from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from mcts_utils.types import EnvError, ServiceGone

# HTTP statuses of a server that is busy, restarting or behind a proxy; 520 to 524 come from public proxies.
TRANSIENT = (408, 425, 429, 502, 503, 504, *range(520, 525))
TEXT_SHOWN = 300  # characters of an answer quoted in an error
UNSENT = (NewConnectionError, ConnectTimeoutError)  # the request cannot have reached the server


class ConnectionLost(EnvError):
    """The connection broke or no answer came in time, so that it is unknown whether the request was executed."""

    slow = False  # no answer came in time: the request may still be executed
    unsent = False  # the request cannot have reached the server
    retry_after = 0.0  # seconds that the server asks to wait


class NotConnected(ConnectionLost):
    """The kept-alive connection is gone and the request was not sent."""

    def __init__(self, text: str, expected: bool) -> None:
        """`expected`: the connection was idle for long, or the server had announced its end."""
        super().__init__(text)
        self.expected = expected


class Unavailable(ConnectionLost):
    """The server, or a proxy before it, answered with a status of TRANSIENT, or not in JSON: as if with nothing."""


class EnvAnswer(EnvError):
    """The server answered 200 with {"error": text}."""


class EnvStatus(EnvError):
    """The server answered with another status than 200."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.status = status


class ServerGone(EnvError, ServiceGone):
    """The server has not answered anybody for SERVER_PATIENCE seconds."""


def root_cause(error: Exception) -> Exception:
    """Return the error that `requests` and urllib3 wrap."""
    while inner := [e for e in (getattr(error, "reason", None), *error.args) if isinstance(e, Exception)]:
        error = inner[0]
    return error


def shown(text: str) -> str:
    """Return the text on one line, cut to TEXT_SHOWN characters."""
    line = " ".join(text.split())
    return line if len(line) <= TEXT_SHOWN else line[:TEXT_SHOWN] + "..."
