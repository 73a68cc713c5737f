"""The open sessions of an environment server: ids, times of last use, the closing of idle sessions, the limit.

It knows no environment and no HTTP; each server's sessions.py says what a session is and what a request does.
"""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

IDLE_SECONDS = 3600.0
MAX_SESSIONS = 10_000
SessionT = TypeVar("SessionT")


class UnknownId(LookupError):
    """No open session has that id."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The id {number} is not valid.")


class Full(Exception):
    """The server takes no more sessions."""


def random_id() -> int:
    """Return an id that nobody can guess, in [2**52, 2**53): JSON readers that use doubles keep it exactly."""
    return 2**52 + secrets.randbits(52)


class SessionStore(Generic[SessionT]):
    """Open sessions by id. Hold `lock` during every call; the methods do not take it."""

    def __init__(
        self, idle_seconds: float, clock: Callable[[], float], max_sessions: int = MAX_SESSIONS
    ) -> None:
        """Create an empty store.

        Args:
            idle_seconds: sessions unused for longer are idle.
            clock: seconds, from any origin.
            max_sessions: sessions that may be open at once.
        """
        self.lock = threading.Lock()
        self.max_sessions, self.new_id = max_sessions, random_id
        self._idle_seconds, self._clock = idle_seconds, clock
        # Id -> session and time of its last use; least recently used first.
        self._open: OrderedDict[int, tuple[SessionT, float]] = OrderedDict()

    def add(self, session: SessionT) -> int:
        """Store a session and return its new id.

        Raises:
            Full: as many sessions as are allowed are open.
        """
        if len(self._open) >= self.max_sessions:
            raise Full(f"{self.max_sessions} sessions are open, and no more are allowed.")
        number = self.new_id()
        while number in self._open:
            number = self.new_id()
        self._open[number] = session, self._clock()
        return number

    def get(self, number: int) -> SessionT:
        """Return a session and count this as a use of it; raise UnknownId if there is no such session."""
        if number not in self._open:
            raise UnknownId(number)
        session, _ = self._open[number]
        self._open[number] = session, self._clock()
        self._open.move_to_end(number)
        return session

    def replace(self, number: int, session: SessionT) -> None:
        """Put another session in the place of an open one, and count this as a use of it.

        Raises:
            UnknownId: no such session.
        """
        self.get(number)
        self._open[number] = session, self._clock()

    def pop(self, number: int) -> SessionT | None:
        """Remove a session and return it; None if it is not open."""
        session, _ = self._open.pop(number, (None, 0.0))
        return session

    def pop_idle(self) -> list[SessionT]:
        """Remove the idle sessions and return them."""
        now, idle = self._clock(), []
        while self._open:
            session, used = next(iter(self._open.values()))
            if now - used <= self._idle_seconds:
                break
            self._open.popitem(last=False)
            idle.append(session)
        return idle

    def __len__(self) -> int:
        """Return the number of open sessions, idle ones included."""
        return len(self._open)

    def ids(self) -> list[int]:
        """Return the ids of the open sessions, least recently used first."""
        return list(self._open)
