"""The open sessions of an environment server: ids, times of last use, and the closing of idle sessions.

It knows no environment and no HTTP; each server's sessions.py says what a session is and what a request does.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

SessionT = TypeVar("SessionT")


class UnknownId(LookupError):
    """No open session has that id."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The id {number} is not valid.")


class SessionStore(Generic[SessionT]):
    """Open sessions by id. Hold `lock` during every call; the methods do not take it."""

    def __init__(
        self, idle_seconds: float, clock: Callable[[], float], new_id: Callable[[], int] | None = None
    ) -> None:
        """Create an empty store.

        Args:
            idle_seconds: sessions unused for longer are idle.
            clock: seconds, from any origin.
            new_id: proposes ids, again while the id is in use; without it they are 0, 1, 2, ...
        """
        self.lock = threading.Lock()
        self._idle_seconds, self._clock = idle_seconds, clock
        self._new_id = new_id or itertools.count().__next__
        # Id -> session and time of its last use; least recently used first.
        self._open: OrderedDict[int, tuple[SessionT, float]] = OrderedDict()

    def add(self, session: SessionT) -> int:
        """Store a session and return its new id."""
        number = self._new_id()
        while number in self._open:
            number = self._new_id()
        self._open[number] = session, self._clock()
        return number

    def get(self, number: int) -> SessionT:
        """Return a session and count this as a use of it.

        Raises:
            UnknownId: no such session.
        """
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

    def ids(self) -> list[int]:
        """Return the ids of the open sessions, least recently used first."""
        return list(self._open)
