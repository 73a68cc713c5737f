"""SQLGym: answer a question over a database (BIRD) with SQL. Pure."""

from __future__ import annotations

import re
from typing import Any

from mcts_utils.envs.specs.base import EnvSpec, Started, field, number
from mcts_utils.types import StepResult, Task


class SqlGym(EnvSpec):
    """The answer to an action is the result, cut to 100 characters. A server has 8 sessions, and lends them again.

    Indices 0 to 9427 are BIRD's training questions, 9428 to 10961 its development questions.
    """

    name, title = "sqlgym", "SQLGym"
    full_prompt = (
        "You answer a question over a database, whose tables you are told, with one SQL query.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on the tables and columns that are needed\n"
        "Action: the SQL query, on one line"
    )
    brief_prompt = "Answer with SQL."
    score = "success_rate"
    refusal = re.compile(r"Error\b|near \"|no such ")
    id_field, index_field = "env_idx", "item_id"
    hello = listing = "/list_envs"
    by_index = True
    most_sessions = 8

    def greets(self, answer: Any) -> bool:
        """Return True for a list of sessions; WebShop and the tool servers have one too."""
        return isinstance(answer, list)

    def session_id(self, created: Any) -> int:
        return int(field({"env_idx": created}, "env_idx", int))

    def started(self, answer: Any, index: int) -> Started:
        # The answer is [text, null].
        text = field({"text": answer[0] if isinstance(answer, list) and answer else None}, "text", str)
        return Started(Task(self.name, index, self.task_id(text, index), text), text)

    def result(self, answer: Any) -> StepResult:
        reward = number(answer, "reward", 0.0, 1.0)
        return StepResult(field(answer, "state", str), reward, field(answer, "done", bool))


SPEC = SqlGym()
