"""An actor that answers by calling a function."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from mcts_utils.actors.limiter import RequestStats
from mcts_utils.types import Actor, Message, Sample


class ScriptedActor(Actor):
    """Answers by calling `script(messages, n, temperature, seed)`, one call at a time. For tests."""

    def __init__(self, script: Callable[[Sequence[Message], int, float, int | None], list[str]]) -> None:
        self._script, self._meter, self._lock = script, RequestStats(), threading.Lock()

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        with self._meter, self._lock:
            texts = self._script(messages, n, temperature, seed)
        self._meter.count(0, 0)
        return [Sample(text) for text in texts]

    def stats(self) -> dict[str, float]:
        return self._meter.stats()

    def close(self) -> None:
        """Free nothing: there is nothing to free."""
