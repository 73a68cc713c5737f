"""Holds requests back: a fixed number in flight, or as many as a Pace allows, and none while the server wants a pause.

It sends nothing; endpoint.py does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from mcts_utils.actors.adaptive_limit import AdaptiveLimit


class RequestStats:
    """Counts requests in flight and tokens, for any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._since = 0.0
        self.flying = 0
        self.calls = self.prompt_tokens = self.completion_tokens = self.max_in_flight = 0
        self.busy_s = self.in_flight_s = 0.0  # seconds with a request; requests x seconds

    def __enter__(self) -> None:
        self._shift(1)

    def __exit__(self, *_: object) -> None:
        self._shift(-1)

    def _shift(self, step: int) -> None:
        with self._lock:
            now = time.monotonic()
            self.busy_s += (now - self._since) * (self.flying > 0)
            self.in_flight_s += (now - self._since) * self.flying
            self._since, self.flying = now, self.flying + step
            self.max_in_flight = max(self.max_in_flight, self.flying)

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """One request was answered."""
        with self._lock:
            self.calls += 1
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens

    def stats(self) -> dict[str, float]:
        """calls, prompt_tokens, completion_tokens, max_in_flight, busy_s, in_flight_s."""
        names = ("calls", "prompt_tokens", "completion_tokens", "max_in_flight", "busy_s", "in_flight_s")
        return {name: round(getattr(self, name), 3) for name in names}


class ConcurrencyLimiter:
    """`with gate:` around a request. Requests pass in the order in which they came."""

    def __init__(self, limit: int, pace: AdaptiveLimit, clock: Callable[[], float] = time.monotonic) -> None:
        """`limit`: requests in flight at most; 0: as `pace` finds it."""
        self._pace = pace if limit == 0 else None
        self._limit, self._clock = limit, clock
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._inside = 0
        self._until = 0.0  # nobody passes before
        self._closed = False

    @property
    def limit(self) -> int:
        """Requests in flight at most, now."""
        return self._pace.limit if self._pace is not None else self._limit

    def __enter__(self) -> None:
        with self._lock:
            self._waiting.append(ticket := threading.Event())
            self._admit()
        ticket.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._closed or self._free()):
            self._inside += 1
            self._waiting.popleft().set()

    def _free(self) -> bool:
        return self._inside < self.limit and (not self._until or self._clock() >= self._until)

    def answered(self) -> None:
        """The request inside got its answer."""
        if self._pace is not None:
            with self._lock:
                self._pace.answered(self._clock(), self._inside)

    def refused(self, pause: float) -> None:
        """The server said 429 or 503, and to come back after `pause` seconds (0: nothing said)."""
        if self._pace is None:
            return
        with self._lock:
            now = self._clock()
            self._pace.refused(now, self._inside)
            self._until = max(self._until, now + pause)
        if pause:  # those who wait may have nobody else to let them in
            timer = threading.Timer(pause, self._reopen)
            timer.daemon = True
            timer.start()

    def _reopen(self) -> None:
        with self._lock:
            self._admit()

    def close(self) -> None:
        """Let everybody pass: what they ask for is refused elsewhere."""
        with self._lock:
            self._closed = True
            self._admit()
