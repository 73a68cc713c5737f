"""ScienceWorld: an elementary science experiment in a house of ten rooms. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mcts_utils.envs.specs.base import EnvSpec, Started, field, number
from mcts_utils.types import EnvError, InputError, StepResult, Task

UNKNOWN = "No known action matches that input"
# Task -> number of its variations, in the order of AgentGym's index: every variation of a task, then the next task.
VARIATIONS = {
    "boil": 30,
    "melt": 30,
    "freeze": 30,
    "change-the-state-of-matter-of": 30,
    "use-thermometer": 540,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "find-animal": 300,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "lifespan-longest-lived": 125,
    "lifespan-shortest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
}

# The simulator's 30 tasks in alphabetical order, as --task_num counts them; AgentGym leaves out seven.
LEFT_OUT = (
    "grow-fruit grow-plant mendelian-genetics-known-plant mendelian-genetics-unknown-plant "
    "inclined-plane-determine-angle inclined-plane-friction-named-surfaces inclined-plane-friction-unnamed-surfaces"
)
TASKS = tuple(sorted([*VARIATIONS, *LEFT_OUT.split()]))


def variations(task: int, count: int) -> list[int]:
    """Return the indices of the first `count` variations of a task.

    Args:
        task: its number, from 0 in alphabetical order of the 30 tasks.

    Raises:
        InputError: no such task, one that AgentGym's servers leave out, or `count` below 1.
    """
    if not 0 <= task < len(TASKS) or TASKS[task] not in VARIATIONS:
        served = [number for number, name in enumerate(TASKS) if name in VARIATIONS]
        raise InputError(f"--task_num {task}: AgentGym serves tasks {', '.join(map(str, served))}")
    if count < 1:
        raise InputError(f"--task_iteration must be at least 1: {count}")
    first = 0
    for name, size in VARIATIONS.items():
        if name == TASKS[task]:
            return list(range(first, first + min(count, size)))
        first += size
    raise AssertionError("unreachable")


class ScienceWorld(EnvSpec):
    """The server's score, 0..100, counts all that was earned so far; below 0 the episode is lost.

    An ambiguous action is answered with a numbered list, and the actor's next action must be the number alone.
    Temperatures and the order of things in a list vary between replays, rewards do not.
    """

    name, title = "sciworld", "ScienceWorld"
    full_prompt = (
        "You do a small science experiment in a text world: a house with several rooms, a workshop and the outside.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: one command\n"
        "The commands are (OBJ is a thing that you see, hold or have read of):\n"
        "look around | look at OBJ | look in OBJ | examine OBJ | inventory | task | read OBJ\n"
        "go to OBJ (a room next to this one; its door must be open) | open OBJ | close OBJ\n"
        "pick up OBJ | put down OBJ | move OBJ to OBJ | pour OBJ in OBJ | dunk OBJ in OBJ | mix OBJ\n"
        "activate OBJ | deactivate OBJ | use OBJ on OBJ | connect OBJ to OBJ | disconnect OBJ | eat OBJ | flush OBJ\n"
        "focus on OBJ | wait1 (one moment passes) | wait (ten moments pass)\n"
        "Focus only on what the task tells you to focus on, and only when it does: a wrong focus loses the task at "
        "once. Doors are named by where they lead, for example: open door to kitchen. If a command fits several "
        "things, the world lists them with numbers: then your command is the number alone, for example: 0. Sub-goals "
        "score points, so work through the task in the order in which it is told."
    )
    brief_prompt = "Do the experiment."
    refusal = re.compile(
        r"No known action matches|Ambiguous request|.{0,80}\bis not open\b|You can't", re.IGNORECASE
    )
    look_actions = re.compile(r"look\b|inventory\b|task\b|examine\b")
    waits = True
    by_index = True
    fixed_opening = fixed_observations = False
    free_action = "look around"
    most_sessions = 8  # a public server starts a process of over 200 MB for each

    def started(self, answer: Any, index: int) -> Started:
        """Return the task, whose opening is the task's description and the first observation."""
        seen = field(answer, "observation", str)
        name = f"{self.name}:{field(answer, 'task_name', str)}:{field(answer, 'var_num', int)}"
        opening = f"{field(answer, 'task_description', str)}\n{seen}"
        return Started(Task(self.name, index, name, opening), seen)

    def goal(self, opening: str) -> str:
        """Return the task's description, which several variations may share."""
        return opening.partition("\n")[0]

    def task_id(self, opening: str, index: int) -> str:
        """Return task and variation, such as sciworld:boil:0, from the index: its order is the same on every server."""
        left = index
        for name, count in VARIATIONS.items():
            if 0 <= left < count:
                return f"{self.name}:{name}:{left}"
            left -= count
        raise EnvError(f"ScienceWorld has no game {index}")

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Return the name of the task."""
        try:
            return {"task_type": self.task_id(opening, index).split(":")[1]}
        except EnvError:
            return {}

    def result(self, answer: Any) -> StepResult:
        """Return the result with the answer's score as reward: its own `reward` is that of the last step alone."""
        score = number(answer, "score", -100.0, 100.0)
        done, disaster = field(answer, "done", bool), score < 0
        seen = field(answer, "observation", str)
        return StepResult(seen, max(0.0, score) / 100, done or disaster, disaster)

    def valid_actions(self, answer: Any) -> Sequence[str]:
        """Return `info.valid` of the answer, which only this route has."""
        valid = field(field(answer, "info", dict), "valid", list)
        return [action for action in valid if isinstance(action, str)]

    def is_unknown(self, observation: str) -> bool:
        return observation.lstrip().startswith(UNKNOWN)

    def difference(self, before: StepResult, now: StepResult) -> str:
        """Return the difference; an action that only one of the two executions refused counts as one."""
        if self.is_unknown(now.observation) != self.is_unknown(before.observation):
            return super().difference(before, replace(now, reward=-1.0))
        return super().difference(before, now)


SPEC = ScienceWorld()
