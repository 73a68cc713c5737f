"""The scripted TextCraft expert: answers conversations by plan, with slips, for the mock LLM.

It reads the conversation's text only: commands and goal from the opening, the inventory from the turns. It also answers
the judge's question (the opening, a log, one current action and its observation).
"""

from __future__ import annotations

import random
import re
from functools import lru_cache

from mcts_utils.servers.textcraft.planner import Action, NoPlan, Planner
from mcts_utils.servers.textcraft.world import load_world, text
from mcts_utils.servers.transcript import CURRENT, LOGGED, Turn, turns, verdict

OPENING = re.compile(
    r"Crafting commands:\n(?P<commands>.*?)\n\nGoal: craft (?P<goal>.*?)\.(?:\n|$)", re.DOTALL
)
GOT = re.compile(r"Got (\d+) (.*)")
CRAFTED = re.compile(r"Crafted (\d+) minecraft:(\w+)")
USING = re.compile(r"craft \d+ .* using (.*)")


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """Return the reply to a conversation.

    With probability `noise` it is a slip; a verdict on the judge's question is then a random one.
    """
    found = (OPENING.search(m["content"]) for m in messages if m["role"] == "user")
    opening = next((match for match in found if match), None)
    if opening is None:
        return "Thought: I do not see a goal.\nAction: inventory"
    current = CURRENT.search(opening.string, opening.end())
    if current:
        return _verdict(opening, (current[1], current[2]), rng, noise)
    return _move(opening, turns(messages), rng, noise)


@lru_cache(maxsize=1 << 16)
def _plan(task: str, held: tuple[tuple[str, int], ...]) -> tuple[Action, ...] | None:
    """Return the plan from an inventory, or None. Cached, because a search meets the same state many times.

    `task` is the opening without the text after it, so that all of the judge's questions about a task share an entry.
    """
    found = OPENING.match(task)
    assert found is not None
    planner = Planner(load_world(), goal_of(found), found["commands"].split("\n"))
    try:
        return tuple(planner.plan(dict(held)))
    except NoPlan:
        return None


def goal_of(opening: re.Match[str]) -> str:
    """Return the goal item as the world names it."""
    return opening["goal"].replace(" ", "_")


def _plan_after(opening: re.Match[str], turns: list[Turn]) -> tuple[Action, ...] | None:
    return _plan(opening[0], tuple(sorted(inventory_after(turns).items())))


def inventory_after(turns: list[Turn]) -> dict[str, int]:
    """Return the inventory (item -> count) that the observations imply."""
    held: dict[str, int] = {}
    for action, observation in turns:
        if got := GOT.match(observation):
            name = got[2].replace(" ", "_")
            held[name] = held.get(name, 0) + int(got[1])
        elif made := CRAFTED.match(observation):
            used = USING.match(action)
            for part in used[1].split(", ") if used else []:
                count, _, item = part.partition(" ")
                held[item.replace(" ", "_")] = held.get(item.replace(" ", "_"), 0) - int(count)
            held[made[2]] = held.get(made[2], 0) + int(made[1])
    return {item: count for item, count in held.items() if count > 0}


def _move(opening: re.Match[str], turns: list[Turn], rng: random.Random, noise: float) -> str:
    plan = _plan_after(opening, turns)
    if plan is None:
        return "Thought: No listed command leads to the goal.\nAction: inventory"
    if not plan:
        return "Thought: The goal should be done.\nAction: inventory"
    if rng.random() < noise:
        refused = [action for action, observation in turns[-1:] if observation.startswith("Could not")]
        crafts = [action.command for action in plan if action.kind == "craft"]
        uncrafted = [f"get 1 {text(action.item)}" for action in plan if action.kind == "craft"]
        slip = rng.choice([*refused, *crafts[-1:], *uncrafted[:1], "inventory"])
        return f"Thought: I will try this now.\nAction: {slip}"
    step = plan[0]
    reason = f"I need {text(step.item)} for {text(step.purpose or goal_of(opening))}."
    return f"Thought: {reason}\nAction: {step.command}"


def _verdict(opening: re.Match[str], current: Turn, rng: random.Random, noise: float) -> str:
    """Return Bad for a refused action or a longer plan after it, Good for a shorter plan, else Uncertain."""
    before = LOGGED.findall(opening.string.split("\n\nLog:\n", 1)[-1])
    plans = _plan_after(opening, before), _plan_after(opening, [*before, current])
    left_before, left_after = (None if plan is None else len(plan) for plan in plans)  # actions still to do
    made = current[1].startswith("Crafted") and current[1].endswith(f" minecraft:{goal_of(opening)}")
    if current[1].startswith(("Could not", "Wrong item format")):
        label, reason = "Bad", "The game refused this action."
    elif made or (left_before is not None and left_after is not None and left_after < left_before):
        label, reason = "Good", "This brings the goal nearer."
    elif left_before is not None and (left_after is None or left_after > left_before):
        label, reason = "Bad", "After this the goal is further away."
    else:
        label, reason = "Uncertain", "This changes nothing that matters."
    return verdict(label, reason, rng, noise)
