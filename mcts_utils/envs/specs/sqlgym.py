"""SQLGym: answer a question over a database (BIRD) with SQL. Pure."""

from __future__ import annotations

import re

from mcts_utils.envs.specs.base import ListedSpec


class SqlGym(ListedSpec):
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
    index_field, text_field = "item_id", "state"
    listing = "/list_envs"
    most_sessions = 8


SPEC = SqlGym()
