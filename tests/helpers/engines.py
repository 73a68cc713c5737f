"""Local actors whose engine runs in the test's own process, where a test can look into it."""

from __future__ import annotations

from typing import Any

from mcts_utils.actors.engine.folder import load_model, make_engine
from mcts_utils.actors.engine.job import EngineSpec
from mcts_utils.actors.local import LocalActor, tokenizer_of


def actor_of(model: Any, tokenizer: Any, max_new: int, concurrency: int, **options: Any) -> LocalActor:
    """Return the actor of a loaded model; `options` are fields of EngineSpec."""
    spec = EngineSpec("", tokenizer.eos_token_id, tokenizer.pad_token_id, concurrency, **options)
    engine = make_engine(model, spec)
    engine.start()
    return LocalActor(engine, tokenizer, max_new)


def actor_in(folder: object, max_new: int, concurrency: int) -> LocalActor:
    """Return the actor of a model folder."""
    model, _ = load_model(EngineSpec(str(folder), None, None, concurrency))
    return actor_of(model, tokenizer_of(str(folder)), max_new, concurrency)
