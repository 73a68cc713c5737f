"""Counts of a run or of one of its parts."""

from __future__ import annotations

from collections import Counter
from threading import Lock


class Counters:
    """Counts of a run or of one of its parts, which adds to the whole's. Safe for threads."""

    def __init__(self, whole: Counters | None = None) -> None:
        self._whole = whole
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, **counts: int) -> None:
        """Add to the named counts; `in_flight` goes up and down."""
        with self._lock:
            self._counts.update(counts)
        if self._whole is not None:
            self._whole.add(**counts)

    def counts(self) -> dict[str, int]:
        """A copy of the counts so far, without those that are 0."""
        with self._lock:
            return {name: count for name, count in self._counts.items() if count}
