"""Limit the requests in flight: to a fixed number or an AdaptiveLimit, and to none while the server asks for a pause.

It sends nothing; endpoint.py does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

from mcts_utils.actors.adaptive_limit import AdaptiveLimit


class RequestStats:
    """Counters of requests and tokens, for any number of threads. Use it as a context around each request."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = 0.0  # when in_flight last changed, seconds of the monotonic clock
        self.in_flight = 0
        self.calls = self.prompt_tokens = self.completion_tokens = self.max_in_flight = 0
        self.busy_s = self.in_flight_s = 0.0  # seconds with a request in flight; sum of all requests' seconds

    def __enter__(self) -> None:
        self._change(1)

    def __exit__(self, *_: object) -> None:
        self._change(-1)

    def _change(self, difference: int) -> None:
        with self._lock:
            now = time.monotonic()
            self.busy_s += (now - self._changed) * (self.in_flight > 0)
            self.in_flight_s += (now - self._changed) * self.in_flight
            self._changed, self.in_flight = now, self.in_flight + difference
            self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def count(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answered request."""
        with self._lock:
            self.calls += 1
            self.prompt_tokens += prompt_tokens
            self.completion_tokens += completion_tokens

    def stats(self) -> dict[str, float]:
        """Return calls, prompt_tokens, completion_tokens, max_in_flight, busy_s and in_flight_s."""
        names = ("calls", "prompt_tokens", "completion_tokens", "max_in_flight", "busy_s", "in_flight_s")
        return {name: round(getattr(self, name), 3) for name in names}


class ConcurrencyLimiter:
    """A context around each request, which waits until the request may be sent; first come, first served."""

    def __init__(
        self, limit: int, adaptive: AdaptiveLimit, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`limit`: requests in flight at most; 0: as `adaptive` says."""
        self._adaptive = adaptive if limit == 0 else None
        self._limit, self._clock = limit, clock
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._in_flight = 0
        self._paused_until = 0.0  # on the clock; 0: there was no pause
        self._closed = False

    @property
    def limit(self) -> int:
        """Return the greatest number of requests in flight now."""
        return self._adaptive.limit if self._adaptive is not None else self._limit

    def __enter__(self) -> None:
        with self._lock:
            self._waiting.append(ticket := threading.Event())
            self._admit()
        ticket.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._in_flight -= 1
            self._admit()

    def _admit(self) -> None:
        while self._waiting and (self._closed or self._free()):
            self._in_flight += 1
            self._waiting.popleft().set()

    def _free(self) -> bool:
        return self._in_flight < self.limit and (
            not self._paused_until or self._clock() >= self._paused_until
        )

    def answered(self) -> None:
        """Report the answer to a request that is in flight."""
        if self._adaptive is not None:
            with self._lock:
                self._adaptive.answered(self._clock(), self._in_flight)

    def refused(self, pause: float) -> None:
        """Report a 429 or 503 with which the server asked for a pause of `pause` seconds (0: for none)."""
        if self._adaptive is None:
            return
        with self._lock:
            now = self._clock()
            self._adaptive.refused(now, self._in_flight)
            self._paused_until = max(self._paused_until, now + pause)
        if pause:  # perhaps no request is in flight whose end would admit the waiting ones
            timer = threading.Timer(pause, self._end_pause)
            timer.daemon = True
            timer.start()

    def _end_pause(self) -> None:
        with self._lock:
            self._admit()

    def close(self) -> None:
        """Admit all waiting and later requests, so that no thread hangs; the closed actor refuses them."""
        with self._lock:
            self._closed = True
            self._admit()
