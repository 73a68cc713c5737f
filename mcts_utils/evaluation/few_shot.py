"""Few-shot examples: solved dialogues that an actor is shown before its task's own. It plays nothing."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation.metrics import is_success
from mcts_utils.evaluation.results import episodes_of
from mcts_utils.prompts import step_messages
from mcts_utils.storage.files import read_json, read_jsonl
from mcts_utils.types import Actor, EnvError, InputError, Message, Sample, Step


@dataclass(frozen=True)
class Examples:
    """`shots` dialogues, and one more to take the place of one that is the task at hand."""

    task: str
    shots: int
    pool: tuple[tuple[str, tuple[Message, ...]], ...]  # (goal, turns from its opening on), each goal once

    def digest(self) -> str:
        """sha256 of what may be shown, in its order."""
        turns = [[(m.role, m.content) for m in turns] for _, turns in self.pool]
        return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()

    def before(self, messages: Sequence[Message]) -> list[Message]:
        """The dialogue with the examples behind its system turn.

        Raises:
            InputError: when too few examples are of other goals.
        """
        system, opening = messages[0], messages[1]
        own = goal_of(self.task, opening.content)
        shown = [turns for goal, turns in self.pool if goal != own][: self.shots]
        if len(shown) < self.shots:
            raise InputError(f"--shots {self.shots}: only {len(shown)} of the examples are of another goal")
        return [system, *(turn for turns in shown for turn in turns), *messages[1:]]


class ShownExamples:
    """An actor that sees the examples first."""

    def __init__(self, actor: Actor, examples: Examples) -> None:
        self._actor, self._examples = actor, examples

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """See types.Actor."""
        return self._actor.sample(self._examples.before(messages), n, temperature, seed)

    def stats(self) -> dict[str, float]:
        """See Actor."""
        return self._actor.stats()

    def close(self) -> None:
        """See Actor."""
        self._actor.close()


def load_examples(path: str | Path, task: str, shots: int, seed: int) -> Examples:
    """`shots` solved dialogues of different goals, drawn by the seed.

    Args:
        path: JSONL of records with `messages` (stage 2), the folder of an evaluation run, or one of its result files;
            of results only the solved ones count.

    Raises:
        InputError: nothing there can be read as a dialogue of this task, or it has too few goals.
    """
    found: dict[str, list[tuple[Message, ...]]] = {}
    for turns in _dialogues(Path(path), task):
        found.setdefault(goal_of(task, turns[0].content), []).append(turns)
    if len(found) < shots:
        raise InputError(f"--examples {path}: {len(found)} solved goals, --shots asks for {shots}")
    rng = random.Random(seed)
    goals = rng.sample(sorted(found), min(len(found), shots + 1))
    return Examples(task, shots, tuple((goal, rng.choice(found[goal])) for goal in goals))


def goal_of(task: str, opening: str) -> str:
    """What the task is; the whole text where it names no goal."""
    try:
        return env_spec(task).goal(opening)
    except EnvError:
        return opening


def _dialogues(path: Path, task: str) -> list[tuple[Message, ...]]:
    if path.suffix == ".jsonl":
        return [
            _recorded(row, f"--examples {path} row {n}", task) for n, row in enumerate(read_jsonl(path), 1)
        ]
    episodes = list(episodes_of(path)) if path.is_dir() else [read_json(path)]
    try:
        other = {episode["task"]["env"] for episode in episodes} - {task}
        found = [_played(e) for e in episodes if is_success(e["reward"])]
    except (KeyError, TypeError) as error:
        raise InputError(f"--examples {path}: not a finished episode ({error!r})") from error
    if other:
        raise InputError(f"--examples {path}: played in {other.pop()}, not {task}")
    return found


def _played(episode: Mapping[str, Any]) -> tuple[Message, ...]:
    steps = [Step(**step) for step in episode["steps"]]
    return (Message("user", episode["task"]["opening"]), *step_messages(steps)[:-1])


def _recorded(row: Mapping[str, Any], where: str, task: str) -> tuple[Message, ...]:
    """The dialogue of a stage 2 row, from the opening to the last assistant turn."""
    try:
        env = row.get("lineage", {}).get("task", {}).get("env", task)
        turns = [Message(m["role"], str(m["content"])) for m in row["messages"] if m["role"] != "system"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: no messages ({error!r})") from error
    if env != task:
        raise InputError(f"{where}: made in {env}, not {task}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if [m.role for m in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise InputError(f"{where}: not a dialogue that begins with an opening and alternates")
    return tuple(turns)
