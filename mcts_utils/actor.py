"""Who answers: an OpenAI-compatible chat endpoint (endpoint.py), a local model (local_model.py), or a script for tests.

It builds no conversation and reads no environment variable.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from mcts_utils.endpoint import EndpointActor
from mcts_utils.gate import Meter
from mcts_utils.types import Actor, InputError, Message, Sample


class ClosableActor(Actor, Protocol):
    """What make_actor gives: an actor with counters and an end."""

    def stats(self) -> dict[str, float]:
        """calls, prompt_tokens, completion_tokens, max_in_flight, busy_s (seconds with a request in flight)."""

    def close(self) -> None:
        """Free connections and threads."""


class ScriptedActor:
    """Answers by calling `script(messages, n, temperature, seed)`, one call at a time. For tests."""

    def __init__(self, script: Callable[[Sequence[Message], int, float, int | None], list[str]]) -> None:
        self._script, self._meter, self._lock = script, Meter(), threading.Lock()

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
        """Nothing to free."""


def make_actor(settings: Any) -> ClosableActor:
    """The actor that the settings name (config.Settings): MODEL_DIR without OPENAI_BASE_URL is a local model.

    Raises:
        InputError: naming the variable, when the folder cannot be loaded or the endpoint does not answer.
    """
    if settings.local:
        # torch takes seconds to import, and an endpoint needs none
        from mcts_utils.local_model import LocalActor, load_model

        model, tokenizer = load_model(settings.model_dir)
        return LocalActor(model, tokenizer, settings.max_token_length, settings.concurrency)
    if not settings.model_name:
        raise InputError(
            "MODEL_NAME is not set: the model's name at the endpoint (or set MODEL_DIR for a local model)"
        )
    if not (settings.openai_base_url or settings.openai_api_key):
        raise InputError(
            "neither MODEL_DIR nor OPENAI_BASE_URL nor OPENAI_API_KEY is set, so nobody can answer"
        )
    actor = EndpointActor(
        settings.openai_base_url or "https://api.openai.com/v1", settings.openai_api_key, settings.model_name,
        settings.max_token_length, settings.concurrency,
    )  # fmt: skip
    try:
        actor.check()
    except InputError:
        actor.close()
        raise
    return actor
