"""ALFWorld: household tasks in text. Pure."""

from __future__ import annotations

import re

from mcts_utils.envs.specs.base import EnvSpec


class AlfWorld(EnvSpec):
    """Reward 1 when the task is done. Indices 0 to 2419 are AgentGym's training games, 2420 to 2619 its test games."""

    name, title = "alfworld", "AlfWorld"
    goal_form = re.compile(r"Your task is to: (.+)")  # several games share it
    goal_sign, goal_last = "'Your task is to: ...'", True
    full_prompt = (
        "You do a household task in a text world: rooms with numbered furniture and things, for example: drawer 2.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: one command\n"
        "The commands are (OBJ is a thing, PLACE a piece of furniture or an appliance, both with their numbers):\n"
        "go to PLACE | open PLACE | close PLACE | take OBJ from PLACE | put OBJ in/on PLACE | use OBJ\n"
        "heat OBJ with PLACE | cool OBJ with PLACE | clean OBJ with PLACE | examine OBJ or PLACE | look | inventory\n"
        "Go to a place before you use it, and carry one thing at a time. Nothing happens after a command that "
        "is not possible."
    )
    brief_prompt = "Do the household task."
    score = "success_rate"
    refusal = re.compile(r"Nothing happens")
    look_actions = re.compile(r"look\b|inventory\b|examine\b")
    index_field = "game"
    reset_fields = {"world_type": "Text"}
    by_index = True


SPEC = AlfWorld()
