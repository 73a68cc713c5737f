"""Describe the usual AgentGym environment, as the base of all specs: field names, meaning of answers, prompts. Pure.

A spec sends nothing: envs/client.py does, and passes the JSON answers on. An environment overrides what differs there.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from mcts_utils.types import EnvError, StepResult, Task

NO_MATCH = re.compile(r"(?!)")  # matches no text
ANY_TEXT = re.compile(r"(?s).*")


@dataclass(frozen=True, slots=True)
class Started:
    """The content of the answer to a reset."""

    task: Task
    shown: str  # the observation, as GET /observation repeats it


class EnvSpec:
    """One environment. A new one overrides class attributes and methods; instances have no state."""

    name: str  # of the file, and the value of TASK
    title: str  # as the answer to GET / names it: "This is environment TextCraft."
    goal_form: re.Pattern[str] | None = None  # its group 1 in an opening is the goal; None: the whole opening
    goal_sign = ""  # what it looks for, in words
    goal_last = False  # the goal ends the opening
    full_prompt: str  # system turn for a model that was not trained on the environment
    brief_prompt: str  # system turn for a model that was trained on it
    refusal: re.Pattern[str] = NO_MATCH  # beginning of an observation that refuses its action
    look_actions: re.Pattern[str] = NO_MATCH  # actions that read the state and change nothing
    action_form: re.Pattern[str] = ANY_TEXT  # actions of another form are never carried out

    # What may be called with ACTIONS=tools: name -> command with its places (tool_calls.py).
    tools: Mapping[str, str] = {"act": "{command}"}  # noqa: RUF012

    score = "mean_reward"  # the metric of Table 2: this or "success_rate"
    id_field = "id"  # names the session in every request and in /create's answer
    index_field = "data_idx"  # names the goal in /reset
    text_field = "observation"  # has the observation in /step's answer
    create_fields: ClassVar[Mapping[str, Any]] = {}  # of the body of /create
    reset_fields: ClassVar[Mapping[str, Any]] = {}  # of the body of /reset, besides the session and the goal
    most_sessions = 0  # that a public server has at once; 0: any number
    hello = "/"  # path of a GET whose answer tells the environment
    # Path of a GET that lists the sessions' ids, where these are random numbers; an unknown id is answered with a 500
    # there. Elsewhere ids are numbered from 0 after a restart, so that an id may be another client's.
    listing = ""
    lost = ("is not valid", "has been deleted")  # texts in {"error"}: the session does not exist any more
    finished = "has finished"  # text in {"error"}: the session's episode is done
    # A public server's goals differ between sessions, so that a tree needs a single one.
    session_bound_tasks = False
    waits = False  # `wait` is a command of the environment, besides the action of a revision signal
    by_index = False  # an index is the same task on every server, so that task_id needs no opening
    live = False  # an episode cannot be played again, so a lost session ends it
    fixed_opening = True  # two resets of a goal show the same text
    fixed_observations = True  # the same actions after a reset show the same texts
    # An action that costs nothing, for which POST /step_visual lists the valid actions; "" where there is no list.
    free_action = ""

    def greets(self, answer: Any) -> bool:
        """Return True if the answer to GET `hello` is this environment's."""
        return self.title.lower() in str(answer).lower()

    def session_id(self, created: Any) -> int:
        """Return the session's id in the answer to /create; raise EnvError if there is none."""
        return int(field(created, self.id_field, int))

    def started(self, answer: Any, index: int) -> Started:
        """Return the task and the observation in the answer to /reset.

        Raises:
            EnvError: there is no opening, or no goal in it.
        """
        opening = field(answer, "observation", str)
        return Started(Task(self.name, index, self.task_id(opening, index), opening), opening)

    def goal(self, opening: str) -> str:
        """Return the part of an opening that states the task, without what varies between servers or resets.

        Raises:
            EnvError: the text names no goal.
        """
        if self.goal_form is None:
            return opening
        match = self.goal_form.search(opening)
        if match is None:
            shown = opening[-200:] if self.goal_last else opening[:200]
            raise EnvError(f"no {self.goal_sign} in the opening text {shown!r}")
        return match.group(1).strip()

    def task_id(self, opening: str, index: int) -> str:
        """Return the id of a task, the same on every server.

        The base uses 16 hex digits of the goal's sha256; the index, where that is the same task everywhere.

        Raises:
            EnvError: the opening names no goal.
        """
        return f"{self.name}:{index}" if self.by_index else f"{self.name}:{digest(self.goal(opening))}"

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Return the task's groups, by which scores are broken down: name of a breakdown -> group; {} if unknown."""
        return {}

    def sent(self, action: str) -> str:
        """Return an action as the body of /step has it."""
        return action

    def result(self, answer: Any) -> StepResult:
        """Return the result in the answer to /step. Its reward is the score of the episode so far, in [0, 1].

        Raises:
            EnvError: a field is missing, of another type or out of range.
        """
        reward = number(answer, "reward", 0.0, 1.0)
        return StepResult(field(answer, self.text_field, str), reward, field(answer, "done", bool))

    def shows(self, answer: Any, seen: str) -> bool:
        """Return True if the answer to GET /observation shows `seen`, what the last reset or step showed."""
        return bool(answer == seen)

    def comparable(self, observation: str) -> str:
        """Return an observation without what varies between a server's sessions."""
        return observation

    def valid_actions(self, answer: Any) -> Sequence[str]:
        """Return the valid actions in the answer to POST /step_visual with `free_action`.

        Raises:
            EnvError: there are none.
        """
        raise EnvError(f"{self.title} lists no valid actions")

    def is_unknown(self, observation: str) -> bool:
        """Return True if the environment did not understand the action, so that a valid one may be meant."""
        return False

    def difference(self, before: StepResult, now: StepResult) -> str:
        """Return how a replayed step differs from its first execution; "" if it does not, or only in varying text."""
        if self.fixed_observations and now.observation != before.observation:
            return f"answered {now.observation!r}, before {before.observation!r}"
        ends = [(step.reward, step.done, step.disaster) for step in (now, before)]
        return "" if ends[0] == ends[1] else f"earned (reward, done, disaster) {ends[0]}, before {ends[1]}"


class ListedSpec(EnvSpec):
    """A server that GET /list_envs tells by its list of sessions, and that answers /create with a bare number."""

    id_field = "env_idx"
    hello = "/list_envs"
    by_index = True

    def greets(self, answer: Any) -> bool:
        """Return True for a list of sessions; these servers do not say which environment they have."""
        return isinstance(answer, list)

    def session_id(self, created: Any) -> int:
        return int(field({"env_idx": created}, "env_idx", int))

    def started(self, answer: Any, index: int) -> Started:
        """Return the task and the observation in the answer, which is a text or [text, null]."""
        listed = isinstance(answer, list) and answer
        text = field({"text": answer[0] if listed else answer}, "text", str)
        return Started(Task(self.name, index, self.task_id(text, index), text), text)


def field(answer: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """Return a field of an answer; raise EnvError if the field is missing or of another type."""
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise EnvError(f"the server answered without a proper {name!r}: {str(answer)[:200]!r}")
    return value


def number(answer: Any, name: str, low: float, high: float) -> float:
    """Return a number field of an answer.

    Raises:
        EnvError: the field is missing, not a number, or not in [low, high].
    """
    value = field(answer, name, (int, float))
    if not (math.isfinite(value) and low <= value <= high):
        raise EnvError(f"the server answered {name} {value!r}, which is not in [{low:g}, {high:g}]")
    return float(value)


def digest(text: str) -> str:
    """Return 16 hex digits of the text's sha256."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
