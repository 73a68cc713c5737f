"""Load statistics of an endpoint: busy slots over time, requests and answers, shared beginnings of prompts.

It counts only; endpoint.py answers.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from typing import Any

BLOCK = 64  # characters; about 16 tokens, the unit in which inference servers cache the beginnings of prompts
MOST_BLOCKS = 200_000  # that are remembered, 3 million tokens; the oldest are forgotten


class LoadStats:
    """The counts of one endpoint with `slots` slots. Thread-safe."""

    def __init__(self, slots: int) -> None:
        self.slots, self.busy = slots, 0
        self._lock = threading.Lock()
        self._busy_seconds = [0.0] * (slots + 1)  # by the number of busy slots
        self._since = time.monotonic()  # when `busy` last changed
        self._first = self._last = 0.0  # time of the first request and of the last answer
        self._requests = self._answers = 0
        self._prompt_chars = self._shared_chars = 0
        self._seen_blocks: OrderedDict[int, None] = OrderedDict()  # chained hashes of the prompts' blocks

    def arrived(self, fail_every: int) -> bool:
        """Count a request; return True if it is one that has to fail, every `fail_every`-th."""
        with self._lock:
            self._first = self._first or time.monotonic()
            self._requests += 1
            return bool(fail_every) and self._requests % fail_every == 0

    def shift(self, step: int) -> None:
        """Count a slot as taken (1) or as free again (-1)."""
        with self._lock:
            now = time.monotonic()
            self._busy_seconds[self.busy] += now - self._since
            self.busy, self._since = self.busy + step, now

    def answered(self) -> None:
        """Count an answer that was sent."""
        with self._lock:
            self._last = time.monotonic()
            self._answers += 1

    def prompt(self, text: str) -> None:
        """Count a prompt's characters, and those at its beginning that a cache of MOST_BLOCKS would hold."""
        chain, shared, known = 0, 0, True
        with self._lock:
            for start in range(0, len(text) - BLOCK + 1, BLOCK):
                chain = hash((chain, text[start : start + BLOCK]))
                known = known and chain in self._seen_blocks
                shared += BLOCK * known
                self._seen_blocks[chain] = None
            while len(self._seen_blocks) > MOST_BLOCKS:
                self._seen_blocks.popitem(last=False)
            self._prompt_chars += len(text)
            self._shared_chars += shared

    def stats(self) -> dict[str, Any]:
        """Return the counts as plain JSON.

        requests and answers; busy_seconds[k], the seconds with k slots busy; mean_busy over the seconds with any busy
        slot; max_busy; wall_s from the first request to the last answer; utilisation, busy slot-seconds / slots /
        wall_s; prompt_chars and shared_chars; cpu_s of the process.
        """
        self.shift(0)
        with self._lock:
            active = sum(self._busy_seconds[1:])
            slot_seconds = sum(k * seconds for k, seconds in enumerate(self._busy_seconds))
            wall = max(0.0, self._last - self._first)
            return {
                "requests": self._requests,
                "answers": self._answers,
                "busy_seconds": [round(seconds, 3) for seconds in self._busy_seconds],
                "mean_busy": round(slot_seconds / active, 2) if active else 0.0,
                "max_busy": max((k for k, seconds in enumerate(self._busy_seconds) if seconds), default=0),
                "wall_s": round(wall, 3),
                "utilisation": round(slot_seconds / (self.slots * wall), 4) if wall else 0.0,
                "prompt_chars": self._prompt_chars,
                "shared_chars": self._shared_chars,
                "cpu_s": round(time.process_time(), 3),
            }

    def metrics(self) -> bytes:
        """Return the numbers of `stats` in Prometheus' text format."""
        numbers = {name: value for name, value in self.stats().items() if isinstance(value, int | float)}
        return "".join(f"mock_llm_{name} {value}\n" for name, value in numbers.items()).encode()
