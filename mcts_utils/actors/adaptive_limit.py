"""How many requests to keep in flight where nobody said: more while the endpoint answers faster, fewer when it refuses.

Pure: it is told the time and what happened. gate.py holds the requests back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 4  # requests in flight at the start
GAIN = 1.1  # doubling goes on while the rate of answers grows by a tenth
SMALL_GAIN = 1.08  # later a quarter more is kept for so many more answers
LOSS = 0.97  # and a fifth less is kept if it costs no more than this
ROUNDS = 4  # answers of a window, as a multiple of the limit: answers come in bursts
WAIT_MOST = 64  # windows between two trials, at most
FULL = 0.75  # share of a window's answers that came while the limit was reached; else it says nothing


@dataclass
class MeasuredInterval:
    """Answers under one limit."""

    began: float  # seconds
    skipped: int  # answers to come that were asked under the limit before
    answers: int = 0
    full: int = 0  # of these, while the limit was reached


class AdaptiveLimit:
    """Hill climbing on the rate of answers: doubled at first, then tried a quarter up and a fifth down, by turns."""

    def __init__(self, most: int, first: int = FIRST) -> None:
        self.limit = min(first, most)
        self._most = most
        self._window: MeasuredInterval | None = None
        self._climbing = True
        self._base = (0.0, self.limit)  # rate and limit to return to
        self._trying = False
        self._up = True  # the next trial's direction
        self._wait, self._left = 1, 1  # windows between trials
        self._refused = -math.inf  # when the limit was last cut

    def answered(self, now: float, in_flight: int) -> None:
        """An answer came at `now` (seconds of any clock), with so many requests in flight, itself included."""
        if self._window is None:
            self._window = MeasuredInterval(now, self.limit)
        window = self._window
        if window.skipped:
            window.skipped -= 1
            window.began = now
            return
        window.answers += 1
        window.full += in_flight >= self.limit
        if window.answers < max(16, ROUNDS * self.limit) or now <= window.began:
            return
        self._window = None
        if window.full >= FULL * window.answers:
            self._judge(window.answers / (now - window.began))

    def refused(self, now: float, in_flight: int) -> None:
        """The server said 429 or 503. Halves the limit, once for all requests that were in flight then."""
        if self._window is not None and self._window.skipped and self._refused > -math.inf:
            return  # asked under the limit before
        self._refused = now
        self.limit = max(1, min(self.limit, in_flight) // 2)
        self._window = MeasuredInterval(now, max(0, in_flight - 1))
        self._climbing, self._trying = False, False
        self._base = (0.0, self.limit)
        self._wait = self._left = min(WAIT_MOST, 2 * self._wait)

    def _judge(self, rate: float) -> None:
        """A window is over: keep its limit, or go back, or try another."""
        before, limit = self._base
        if self._climbing:
            if rate >= GAIN * before:
                self._base = (rate, self.limit)
                self._set(2 * self.limit)
                self._climbing = self.limit > self._base[1]
            else:
                self._climbing = False
                self._set(limit)
        elif self._trying:
            self._trying = False
            if rate >= before * (SMALL_GAIN if self.limit > limit else LOSS):
                self._base, self._wait = (rate, self.limit), 1
            else:
                self._set(limit)
                self._wait = min(WAIT_MOST, 2 * self._wait)
            self._left = self._wait
        else:
            self._base = (rate, self.limit)
            self._left -= 1
            if self._left <= 0:
                self._trying = True
                self._set(math.ceil(self.limit * 1.25) if self._up else int(self.limit * 0.8))
                self._up = not self._up

    def _set(self, limit: int) -> None:
        self.limit = max(1, min(self._most, limit))
