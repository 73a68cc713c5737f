"""Decide how long a server or an endpoint that fails is waited for, and say so once. It sends nothing.

A service is watched by all its users in a process together: one that answers anybody is not gone.
"""

from __future__ import annotations

import email.utils
import sys
import time
from collections.abc import Mapping
from threading import Lock

from mcts_utils.terminal import Progress

QUIET_SECONDS = 3.0  # of an outage before a line says that it is waited for
MAX_PAUSE = 5.0  # seconds between two tries


def now() -> float:
    """Return the seconds of the monotonic clock."""
    return time.monotonic()


def pause(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


class ServiceWatch:
    """When one service last answered. Safe for threads."""

    def __init__(self, name: str, variable: str, gone: type[Exception]) -> None:
        """Know of no answer yet.

        Args:
            name: of the service, as it is printed, with its address.
            variable: environment variable with the seconds of patience.
            gone: exception of `require_alive`, made of one line.
        """
        self._name, self._variable, self._gone = name, variable, gone
        self._lock = Lock()
        self.known = False  # it has answered once
        self._down_since: float | None = None  # monotonic seconds of the first failure after its last answer
        self._said = False

    def answered(self) -> None:
        """Note an answer, whatever it says."""
        with self._lock:
            if self._said:
                Progress.write(f"{self._name} answers again", file=sys.stderr)
            self.known, self._down_since, self._said = True, None, False

    def failed(self, error: object, patience: float) -> None:
        """Note a failure, and print one line for an outage that lasts; `patience` in seconds."""
        with self._lock:
            self._down_since = self._down_since or now()
            if patience and not self._said and self.down() > QUIET_SECONDS:
                self._said = True
                Progress.write(
                    f"waiting for {self._name}, at most {self._variable}={patience:g} s: {error}",
                    file=sys.stderr,
                )

    def down(self) -> float:
        """Return the seconds since the first failure after the last answer; 0 if the last request was answered."""
        since = self._down_since
        return 0.0 if since is None else now() - since

    def require_alive(self, error: Exception, patience: float) -> None:
        """Check that the service answered somebody within the last `patience` seconds (0: do not check).

        Raises:
            Exception: of the type `gone`: it did not; `error` is its last failure.
        """
        down = self.down()
        if 0 < patience <= down:
            line = f"{self._name} has not answered for {down:.0f} s ({self._variable}): {error}"
            raise self._gone(line) from error


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a Retry-After header (a number or an HTTP date), or None if there is no valid one."""
    value = headers.get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None
