"""Show a model the reasoning of earlier turns as HISTORY_REASONING says. Turns are stored with all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcts_utils.reasoning import shown_history
from mcts_utils.types import Actor, Message, Sample


class HistoryActor(Actor):
    """An actor that is asked with the reasoning of earlier turns dropped, or not."""

    def __init__(self, actor: Actor, shown: str) -> None:
        """`shown`: as for reasoning.shown_history."""
        self._actor, self._shown = actor, shown

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        return self._actor.sample(shown_history(messages, self._shown), n, temperature, seed)

    def stats(self) -> dict[str, Any]:
        return self._actor.stats()

    def close(self) -> None:
        self._actor.close()
