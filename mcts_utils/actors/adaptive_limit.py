"""Find the number of requests in flight for an endpoint: more while it answers faster, fewer when it refuses.

Pure: it is told the time and the events. limiter.py holds the requests back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 4  # requests in flight at the start
# Least ratio of an interval's rate of answers to the rate before:
DOUBLING_GAIN = 1.1  # for the limit to be doubled again
INCREASE_GAIN = 1.08  # later, for a limit that is a quarter higher to be kept
DECREASE_GAIN = 0.97  # later, for a limit that is a fifth lower to be kept
ROUNDS = 4  # answers of an interval, as a multiple of the limit, because answers come in bursts
MIN_ANSWERS = 16  # of an interval
MAX_WAIT = 64  # intervals between two trials
FULL = 0.75  # share of an interval's answers that must come while the limit is reached; others are not judged


@dataclass
class MeasuredInterval:
    """Answers under one limit."""

    began: float  # seconds
    skipped: int  # answers to requests that were sent under the previous limit; they are not counted
    answers: int = 0
    full: int = 0  # answers that came while the limit was reached


class AdaptiveLimit:
    """Hill climbing on the rate of answers: doubling at first, then trials of 5/4 and 4/5 of the limit in turn."""

    def __init__(self, maximum: int, first: int = FIRST) -> None:
        """`maximum`: of the limit."""
        self.limit = min(first, maximum)
        self._maximum = maximum
        self._interval: MeasuredInterval | None = None
        self._doubling = True
        self._base = (0.0, self.limit)  # rate and limit to return to
        self._trying = False
        self._up = True  # the next trial's direction
        self._wait, self._left = 1, 1  # intervals between trials; those left until the next one
        self._refused = -math.inf  # when the limit was last halved

    def answered(self, now: float, in_flight: int) -> None:
        """Count an answer at `now` (seconds of any clock), with `in_flight` requests in flight, its own included."""
        if self._interval is None:
            self._interval = MeasuredInterval(now, self.limit)
        interval = self._interval
        if interval.skipped:
            interval.skipped -= 1
            interval.began = now
            return
        interval.answers += 1
        interval.full += in_flight >= self.limit
        if interval.answers < max(MIN_ANSWERS, ROUNDS * self.limit) or now <= interval.began:
            return
        self._interval = None
        if interval.full >= FULL * interval.answers:
            self._judge(interval.answers / (now - interval.began))

    def refused(self, now: float, in_flight: int) -> None:
        """Halve the limit after a 429 or 503, once for all requests that were in flight then."""
        if self._interval is not None and self._interval.skipped and self._refused > -math.inf:
            return  # the request was sent under the previous limit
        self._refused = now
        self.limit = max(1, min(self.limit, in_flight) // 2)
        self._interval = MeasuredInterval(now, max(0, in_flight - 1))
        self._doubling, self._trying = False, False
        self._base = (0.0, self.limit)
        self._wait = self._left = min(MAX_WAIT, 2 * self._wait)

    def _judge(self, rate: float) -> None:
        """Keep the limit, restore the base or try another, after an interval of `rate` answers per second."""
        before, limit = self._base
        if self._doubling:
            if rate >= DOUBLING_GAIN * before:
                self._base = (rate, self.limit)
                self._set(2 * self.limit)
                self._doubling = self.limit > self._base[1]
            else:
                self._doubling = False
                self._set(limit)
        elif self._trying:
            self._trying = False
            if rate >= before * (INCREASE_GAIN if self.limit > limit else DECREASE_GAIN):
                self._base, self._wait = (rate, self.limit), 1
            else:
                self._set(limit)
                self._wait = min(MAX_WAIT, 2 * self._wait)
            self._left = self._wait
        else:
            self._base = (rate, self.limit)
            self._left -= 1
            if self._left <= 0:
                self._trying = True
                self._set(math.ceil(self.limit * 1.25) if self._up else int(self.limit * 0.8))
                self._up = not self._up

    def _set(self, limit: int) -> None:
        self.limit = max(1, min(self._maximum, limit))
