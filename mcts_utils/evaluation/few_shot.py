"""Few-shot examples: solved dialogues that are put before the dialogue of a task. Rolls nothing out."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import env_spec
from mcts_utils.evaluation.metrics.scores import is_success
from mcts_utils.evaluation.results import episodes_of
from mcts_utils.prompts import step_messages
from mcts_utils.storage.files import iter_jsonl, read_json
from mcts_utils.storage.formats.base import parsed
from mcts_utils.storage.formats.episode import EpisodeFile
from mcts_utils.types import EnvError, InputError, Message


@dataclass(frozen=True)
class Examples:
    """`shots` solved dialogues, and one more that replaces an example of the task's own goal."""

    task: str
    shots: int
    pool: tuple[tuple[str, tuple[Message, ...]], ...]  # (goal, turns from the opening on); goals differ

    def digest(self) -> str:
        """Return the sha256 of all dialogues of the pool, in order."""
        turns = [[(m.role, m.content) for m in turns] for _, turns in self.pool]
        return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()

    def before(self, messages: Sequence[Message]) -> list[Message]:
        """Return the dialogue with examples after its system turn; raise InputError if too few are of another goal."""
        system, opening = messages[0], messages[1]
        own = goal_of(self.task, opening.content)
        shown = [turns for goal, turns in self.pool if goal != own][: self.shots]
        if len(shown) < self.shots:
            raise InputError(f"--shots {self.shots}: only {len(shown)} of the examples are of another goal")
        return [system, *(turn for turns in shown for turn in turns), *messages[1:]]


def load_examples(path: str | Path, task: str, shots: int, seed: int) -> Examples:
    """Draw `shots` solved dialogues of different goals (and one in reserve) with the seed.

    Args:
        path: JSONL of records with `messages` (stage 2), the folder of an evaluation run, or one of its result files;
            of results, only solved ones are used.

    Raises:
        InputError: a record or result is not a dialogue of this task, or there are too few goals.
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
    """Return the goal that an opening names, or the whole opening if it names none."""
    try:
        return env_spec(task).goal(opening)
    except EnvError:
        return opening


def _dialogues(path: Path, task: str) -> list[tuple[Message, ...]]:
    """Read the dialogues of stage 2 records or of solved episodes."""
    if path.suffix == ".jsonl":
        return [_record_dialogue(row, f"--examples {path} row {n}", task) for n, row in iter_jsonl(path)]
    try:
        episodes = list(episodes_of(path)) if path.is_dir() else [parsed(read_json(path), EpisodeFile)]
    except InputError as error:
        raise InputError(f"--examples {path}: not a finished episode ({error})") from error
    if other := {episode.task.env for episode in episodes} - {task}:
        raise InputError(f"--examples {path}: played in {other.pop()}, not {task}")
    return [
        (Message("user", episode.task.opening), *step_messages(episode.all_steps)[:-1])  # to the last reply
        for episode in episodes
        if is_success(episode.reward)
    ]


def _record_dialogue(row: Mapping[str, Any], where: str, task: str) -> tuple[Message, ...]:
    """Return the dialogue of a stage 2 record, from the opening to the last assistant turn."""
    try:
        env = row.get("lineage", {}).get("task", {}).get("env", task)
        turns = [Message(m["role"], m["content"]) for m in row["messages"] if m["role"] != "system"]
        if not all(isinstance(turn.content, str) for turn in turns):
            raise TypeError("content must be a text")
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{where}: no messages ({error!r})") from error
    if env != task:
        raise InputError(f"{where}: made in {env}, not {task}")
    while turns and turns[-1].role != "assistant":
        turns.pop()
    if [m.role for m in turns] != ["user", "assistant"] * (len(turns) // 2) or not turns:
        raise InputError(f"{where}: not a dialogue that begins with an opening and alternates")
    return tuple(turns)
