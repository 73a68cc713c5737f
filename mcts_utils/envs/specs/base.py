"""The usual AgentGym environment, as the base of all contracts: field names, what answers mean, prompts. Pure.

A contract sends nothing: envs/session.py does, and hands the JSON answers to it. An environment overrides what is
different there.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mcts_utils.types import EnvError, StepResult, Task

NOTHING = re.compile(r"(?!)")  # matches no text


@dataclass(frozen=True, slots=True)
class Started:
    """What the answer to a reset says."""

    task: Task
    shown: str  # the observation alone, as GET /observation repeats it


class EnvSpec:
    """One environment. Class attributes and methods are what a new environment overrides; instances have no state."""

    name: str  # of the file, and TASK's value
    title: str  # GET / names it: "This is environment TextCraft."
    full_prompt: str  # system turn for a model that was never trained on the environment
    brief_prompt: str  # for a model trained on it: the environment's own text says the rest
    refusal: re.Pattern[str] = NOTHING  # how an observation begins that refuses its action
    look_actions: re.Pattern[str] = NOTHING  # actions that read the state and change nothing

    score = "mean_reward"  # the number that counts in Table 2; "success_rate" is the other one
    id_field = "id"  # names the session in every request and in /create's answer
    index_field = "data_idx"  # names the goal in /reset
    hello = "/"  # GET that tells which environment answers there
    # Ids are numbered from 0 after a restart, so an id may be another client's. Where they are random numbers, this
    # GET lists those in use; an unknown one is answered with a 500 there.
    listing = ""
    lost = ("is not valid", "has been deleted")  # texts of {"error"}: the session is not there any more
    finished = "has finished"  # text of {"error"}: the episode of that session is done
    session_bound_tasks = False  # a public server's goals differ between sessions, so a tree must stay in one
    waits = False  # `wait` is a command of the environment, not only the action of a revision signal
    by_index = False  # an index is the same task on every server, so task_id needs no opening
    fixed_opening = True  # two resets of a goal show the same text
    fixed_observations = True  # the same actions after a reset show the same texts
    # An action that costs nothing, with which POST /step_visual lists the valid actions; "" where there is no list.
    free_action = ""

    def greets(self, answer: Any) -> bool:
        """True if the answer to GET `hello` is this environment's."""
        return self.title.lower() in str(answer).lower()

    def session_id(self, created: Any) -> int:
        """The session's id in the answer to /create.

        Raises:
            EnvError: there is none.
        """
        return int(field(created, self.id_field, int))

    def started(self, answer: Any, index: int) -> Started:
        """The task in the answer to /reset.

        Raises:
            EnvError: no opening, or no goal in it.
        """
        opening = field(answer, "observation", str)
        return Started(Task(self.name, index, self.task_id(opening, index), opening), opening)

    def goal(self, opening: str) -> str:
        """The part of an opening that says what the task is, without what varies between servers or resets.

        Raises:
            EnvError: the text names no goal.
        """
        return opening

    def task_id(self, opening: str, index: int) -> str:
        """The id of a task, the same on every server. The base names it by 16 hex digits of the goal's sha256.

        Raises:
            EnvError: the opening names no goal.
        """
        return f"{self.name}:{digest(self.goal(opening))}"

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Kinds of tasks by which scores are broken down: name of a breakdown -> this task's group; {} if unknown."""
        return {}

    def result(self, answer: Any) -> StepResult:
        """What the answer to /step means; rewards are scores of the episode so far, in [0, 1].

        Raises:
            EnvError: a field is missing, of another type or out of range.
        """
        reward = number(answer, "reward", 0.0, 1.0)
        return StepResult(field(answer, "observation", str), reward, field(answer, "done", bool))

    def shows(self, answer: Any, seen: str) -> bool:
        """True if the answer to GET /observation shows what the last reset or step showed."""
        return bool(answer == seen)

    def valid_actions(self, answer: Any) -> Sequence[str]:
        """The valid actions in the answer to POST /step_visual with `free_action`.

        Raises:
            EnvError: there are none.
        """
        raise EnvError(f"{self.title} lists no valid actions")

    def is_unknown(self, observation: str) -> bool:
        """True if the environment did not understand the action, so that a valid one may be meant."""
        return False

    def difference(self, before: StepResult, now: StepResult) -> str:
        """How a replayed step differs from its first execution; empty if it does not, or not in what matters."""
        if self.fixed_observations and now.observation != before.observation:
            return f"answered {now.observation!r}, before {before.observation!r}"
        ends = [(step.reward, step.done, step.disaster) for step in (now, before)]
        return "" if ends[0] == ends[1] else f"earned (reward, done, disaster) {ends[0]}, before {ends[1]}"


def field(answer: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of an answer.

    Raises:
        EnvError: it is missing or of another type.
    """
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise EnvError(f"the server answered without a proper {name!r}: {str(answer)[:200]!r}")
    return value


def number(answer: Any, name: str, low: float, high: float) -> float:
    """A number field of an answer.

    Raises:
        EnvError: it is missing, no number, or not in [low, high].
    """
    value = field(answer, name, (int, float))
    if not (math.isfinite(value) and low <= value <= high):
        raise EnvError(f"the server answered {name} {value!r}, which is not in [{low:g}, {high:g}]")
    return float(value)


def digest(text: str) -> str:
    """16 hex digits of the text's sha256."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
