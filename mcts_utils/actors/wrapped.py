"""An actor that stands before another one, as the base of those that look at what is asked or answered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mcts_utils.types import Actor, Message, Sample


class WrappedActor(Actor):
    """Passes requests on to an actor, which sees their conversations as `shown` gives them."""

    def __init__(self, actor: Actor, shown: Callable[[Sequence[Message]], Sequence[Message]]) -> None:
        self._actor, self._shown = actor, shown

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        return self._actor.sample(self._shown(messages), n, temperature, seed)

    def stats(self) -> dict[str, Any]:
        return self._actor.stats()

    def close(self) -> None:
        """Close the actor."""
        self._actor.close()
