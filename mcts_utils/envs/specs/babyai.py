"""BabyAI: reach, carry, open or bring together coloured things in a grid of rooms. Pure."""

from __future__ import annotations

import re
from typing import Any

from mcts_utils.envs.specs.base import EnvSpec, digest, field, number
from mcts_utils.types import StepResult

LEVELS = 40  # index = seed * LEVELS + level


class BabyAI(EnvSpec):
    """The reward comes with the mission's end: 1 minus the cost of the steps. Every observation lists the actions."""

    name, title = "babyai", "BabyAI"
    goal_form = re.compile(r"\AYour goal: (.+)")
    goal_sign = "'Your goal: ...'"
    full_prompt = (
        "You move through a grid of rooms with coloured doors, keys, balls and boxes, and have a goal to reach. You "
        "see what lies before you; distances are in steps ahead and to your left or right.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: one of the actions that the last observation lists as available, word for word\n"
        "The actions are of these kinds: turn left, turn right, move forward, go to <thing> <number>, pickup <thing> "
        "<number>, go through <door> <number>, toggle and go through <door> <number>, drop, toggle, check available "
        "actions. A locked door needs the key of its colour in your hand; you carry one thing at a time. Turn around "
        "to find what you do not see. Fewer steps earn more."
    )
    brief_prompt = "Reach the goal."
    refusal = re.compile(
        r"The action is not recognized|There is a barrier|No change in state|You cannot (?!see )"
    )
    look_actions = re.compile(r"check available")

    def task_id(self, opening: str, index: int) -> str:
        """Return level and seed, from the index, and a hash of the mission."""
        seed, level = divmod(index, LEVELS)
        return f"{self.name}:{level + 1}:{seed}:{digest(self.goal(opening))}"

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Return the level, from 1 as in a task's id."""
        return {"level": str(index % LEVELS + 1)}

    def result(self, answer: Any) -> StepResult:
        """Return the result with the score cut to 1.

        The server adds the reward again in every step after a mission that ended late without being counted.
        """
        score = min(1.0, number(answer, "score", 0.0, float("1e9")))
        return StepResult(field(answer, "observation", str), score, field(answer, "done", bool))

    def shows(self, answer: Any, seen: str) -> bool:
        """Compare the ends of the texts: this answer begins with the goal, which a step's observation does not have."""
        return str(field(answer, "observation", str)).endswith(seen)


SPEC = BabyAI()
