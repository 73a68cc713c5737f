"""Thread-safe counts of a run and of its parts. It counts only; what the names mean is the users' business."""

from __future__ import annotations

from collections import Counter
from threading import Lock


class Counters:
    """Named counts. Those of a part are added to its parent's too. Safe for threads."""

    def __init__(self, parent: Counters | None = None) -> None:
        self._parent = parent
        self._counts: Counter[str] = Counter()
        self._lock = Lock()

    def add(self, **counts: int) -> None:
        """Add to the named counts; negative numbers subtract (`in_flight` goes up and down)."""
        with self._lock:
            self._counts.update(counts)
        if self._parent is not None:
            self._parent.add(**counts)

    def counts(self) -> dict[str, int]:
        """Return a copy of the counts so far, without those that are 0."""
        with self._lock:
            return {name: count for name, count in self._counts.items() if count}
