"""Files of finished evaluations, made up."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict

from mcts_utils.storage.formats.base import StepFields, TaskFields
from mcts_utils.storage.formats.episode import EpisodeFile, EpisodeSettings, EvalProtocol
from mcts_utils.types import Step, Task

PROTOCOL = EvalProtocol(
    task="textcraft",
    mode="main",
    temperature=0.0,
    max_steps=20,
    prompt="full",
    max_token_length=256,
    seed=None,
)


def finished_episode(task: Task, steps: Sequence[Step], reward: float) -> EpisodeFile:
    """An episode without a prefix, under PROTOCOL."""
    return EpisodeFile(
        task=TaskFields.of(task),
        steps=[StepFields.of(step) for step in steps],
        reward=reward,
        end="done" if reward == 1 else "max_steps",
        prompt=PROTOCOL.prompt,
        settings=EpisodeSettings(**asdict(PROTOCOL), model="tiny_actor"),
    )
