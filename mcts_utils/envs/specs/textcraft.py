"""TextCraft: craft a goal item from a list of recipes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

from mcts_utils.envs.specs.base import EnvSpec

GOAL_LINE = re.compile(r"^Goal: craft (.+)\.\s*\Z", re.MULTILINE)
COMMAND = re.compile(r"^craft \d+ (.+) using (.+)$", re.MULTILINE)
COUNT = re.compile(r"^\s*\d+ ")
# Class of ingredients whose members are all crafted -> ending of the members' names; other classes have a raw member.
CRAFTED = {"planks": " planks", "wooden slabs": " slab", "wool": " wool"}


class TextCraft(EnvSpec):
    """The step that makes the goal item ends the episode with reward 1. The server takes an index modulo its goals."""

    name, title = "textcraft", "TextCraft"
    # The list of commands before the goal does not identify the task.
    goal_form, goal_sign, goal_last = GOAL_LINE, "line 'Goal: craft <item>.'", True
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
    score = "success_rate"
    refusal = re.compile(r"Could not |Wrong item format")
    look_actions = re.compile(r"inventory")
    # The listed commands vary with concurrent resets and restarts of a public server; the goal does not.
    fixed_opening = False

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Return the number of crafting levels from raw items to the goal, 1 or more."""
        goal = GOAL_LINE.search(opening)
        level = depths(COMMAND.findall(opening)).get(goal.group(1)) if goal else None
        return {"depth": str(level)} if level else {}


def depths(commands: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return the least number of crafting levels of every listed item that can be made: item -> level.

    Args:
        commands: (item, ingredients as the command lists them). Items that no command makes are raw, level 0.
    """
    recipes = [(item, [COUNT.sub("", part) for part in needs.split(",")]) for item, needs in commands]
    made = {item for item, _ in recipes}

    def members(name: str) -> set[str]:
        ending = CRAFTED.get(name)
        return {name} if name in made or not ending else {item for item in made if item.endswith(ending)}

    def lowest(name: str) -> int | None:
        known = [level.get(item) if item in made else 0 for item in members(name)]
        return min((n for n in known if n is not None), default=None)

    level: dict[str, int] = {}
    while True:
        found: dict[str, int] = {}
        for item, needs in recipes:
            below = [n for name in needs if (n := lowest(name)) is not None]
            if item not in level and len(below) == len(needs):
                found[item] = min(1 + max(below), found.get(item, 1 + max(below)))
        if not found:
            return level
        level |= {item: best for item, best in found.items() if best == min(found.values())}


SPEC = TextCraft()
