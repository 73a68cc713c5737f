"""What an endpoint lived through: busy slots by the second, requests and answers, what the prompts had in common.

It counts only; chat.py answers. Safe for threads.
"""

from __future__ import annotations

import threading
import time
from typing import Any

BLOCK = 64  # characters: about the 16 tokens by which servers cache the beginnings of prompts


class LoadStats:
    """The counts of one endpoint with `slots` slots."""

    def __init__(self, slots: int) -> None:
        self.slots, self.busy = slots, 0
        self._lock = threading.Lock()
        self._seconds = [0.0] * (slots + 1)  # by number of busy slots
        self._since = time.monotonic()
        self._first = self._last = 0.0  # the first request and the last answer
        self._requests = self._answers = 0
        self._bytes = self._shared = 0
        self._seen: set[int] = set()  # chained hashes of the prompts' blocks

    def arrived(self, fail_every: int) -> bool:
        """A request is there; true if it is one that has to fail."""
        with self._lock:
            self._first = self._first or time.monotonic()
            self._requests += 1
            return bool(fail_every) and self._requests % fail_every == 0

    def shift(self, step: int) -> None:
        """A slot is taken (1) or free again (-1)."""
        with self._lock:
            now = time.monotonic()
            self._seconds[self.busy] += now - self._since
            self.busy, self._since = self.busy + step, now

    def answered(self) -> None:
        """An answer was sent."""
        with self._lock:
            self._last = time.monotonic()
            self._answers += 1

    def prompt(self, text: str) -> None:
        """Count how much of a prompt begins as an earlier one did, as an endless cache of blocks would see it."""
        chain, shared, known = 0, 0, True
        with self._lock:
            for start in range(0, len(text) - BLOCK + 1, BLOCK):
                chain = hash((chain, text[start : start + BLOCK]))
                known = known and chain in self._seen
                shared += BLOCK * known
                self._seen.add(chain)
            self._bytes += len(text)
            self._shared += shared

    def stats(self) -> dict[str, Any]:
        """Counts as plain JSON.

        Returns:
            requests and answers; busy_seconds[k], seconds with k slots busy; mean_busy over the seconds with any;
            max_busy; wall_s from the first request to the last answer; utilisation: busy slot-seconds / slots / wall_s;
            prompt_chars and shared_chars; cpu_s of the process.
        """
        self.shift(0)
        with self._lock:
            active = sum(self._seconds[1:])
            load = sum(k * seconds for k, seconds in enumerate(self._seconds))
            wall = max(0.0, self._last - self._first)
            return {
                "requests": self._requests,
                "answers": self._answers,
                "busy_seconds": [round(seconds, 3) for seconds in self._seconds],
                "mean_busy": round(load / active, 2) if active else 0.0,
                "max_busy": max((k for k, seconds in enumerate(self._seconds) if seconds), default=0),
                "wall_s": round(wall, 3),
                "utilisation": round(load / (self.slots * wall), 4) if wall else 0.0,
                "prompt_chars": self._bytes,
                "shared_chars": self._shared,
                "cpu_s": round(time.process_time(), 3),
            }
