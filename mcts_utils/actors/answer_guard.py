"""Stop a stage whose model answers nothing at all: every reply would be a refused action, at full cost."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from mcts_utils.actors.wrapped import WrappedActor
from mcts_utils.types import Actor, ActorError, Message, Sample, ServiceGone

FIRST = 20  # answers, all of them empty, after which there is no hope


class NothingAnswered(ActorError, ServiceGone):
    """The first answers of a stage were all empty."""


class AnswerGuard(WrappedActor):
    """Passes requests on to an actor, and looks at its first answers."""

    def __init__(self, actor: Actor, model: str, limit: int) -> None:
        """`model` and `limit` (MAX_TOKEN_LENGTH) are named in the error."""
        self._actor, self._model, self._limit = actor, model, limit
        self._lock = threading.Lock()
        self._empty = 0
        self._answered = False

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Return what the actor answers; raise NothingAnswered if the first answers were all empty."""
        found = self._actor.sample(messages, n, temperature, seed)
        with self._lock:
            given = any(sample.text.strip() or sample.tool_calls for sample in found)
            self._answered = self._answered or given
            self._empty += len(found)
            if not self._answered and self._empty >= FIRST:
                raise NothingAnswered(
                    f"the first {self._empty} answers of MODEL_NAME={self._model} are all empty: look at its server "
                    "and its chat template; a model that reasons first may need THINK_TOKENS beside "
                    f"MAX_TOKEN_LENGTH={self._limit}"
                )
        return found
