"""TextCraft: craft a goal item from a list of recipes."""

from __future__ import annotations

import re

from mcts_utils.contracts.base import Contract
from mcts_utils.types import EnvError

GOAL_LINE = re.compile(r"^Goal: craft (.+)\.\s*\Z", re.MULTILINE)


class TextCraft(Contract):
    """Reward 1 and done come on the step that makes the goal item; the server takes an index modulo its goals."""

    name, title = "textcraft", "TextCraft"
    full_prompt = (
        "You are playing a crafting game. You get a list of crafting commands and a goal item to make.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: one command\n"
        "The commands are:\n"
        "get <number> <item> - take raw items that no listed command makes, for example: get 2 oak log\n"
        "craft <number> <item> using <number> <item>, <number> <item> - one listed command, with items that you hold; "
        "a plural class such as planks, logs or coals stands for any one member, which you must name\n"
        "inventory - see what you hold\n"
        "Items must be in the inventory before you craft with them. The game answers each command with its result."
    )
    brief_prompt = "Craft the goal."
    refusal = re.compile(r"Could not |Wrong item format")
    look = re.compile(r"inventory")
    # The listed commands vary with concurrent resets and restarts of a public server; the goal does not.
    fixed_opening = False

    def goal(self, opening: str) -> str:
        """The goal item; the list of commands before it is no part of a task's identity."""
        match = GOAL_LINE.search(opening)
        if match is None:
            raise EnvError(f"no line 'Goal: craft <item>.' in the opening text {opening[-200:]!r}")
        return match.group(1)


CONTRACT = TextCraft()
