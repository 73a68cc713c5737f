"""Maze (LMRL-Gym): walk from one of 26 places to the goal. `ENV_SERVER_BASE` ends with /maze. Pure."""

from __future__ import annotations

from typing import Any

from mcts_utils.envs.specs.base import EnvSpec, field, number
from mcts_utils.types import StepResult


class Maze(EnvSpec):
    """Reward 1 at the goal; -1, which counts as 0, and the end after 50 moves.

    A move into a wall shows the same text.
    """

    name, title = "maze", "Maze"
    full_prompt = (
        "You walk through a maze. You are told the goal's position, yours, and the walls around you. A position is "
        "row, column: move down adds 1 to the row, move right adds 1 to the column. A move into a wall changes "
        "nothing. Reach the goal in few moves.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: move up, move down, move left or move right"
    )
    brief_prompt = "Reach the goal."
    score = "success_rate"
    index_field = "game"
    hello = "/available_actions"
    by_index = True

    def greets(self, answer: Any) -> bool:
        """Return True for the list of moves, which Maze alone has."""
        return isinstance(answer, list) and "move left" in answer

    def result(self, answer: Any) -> StepResult:
        reward = max(0.0, number(answer, "reward", -4.0, 1.0))
        return StepResult(field(answer, "observation", str), reward, field(answer, "done", bool))


SPEC = Maze()
