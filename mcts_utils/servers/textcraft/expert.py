"""Answers to TextCraft conversations by plan, with slips: what a scripted chat endpoint says. Reads text only.

The conversation is all it knows: commands and goal from the opening, the inventory from the turns. It also answers the
judge's question (the opening, a log, one current action and its observation).
"""

from __future__ import annotations

import random
import re

from mcts_utils.servers.textcraft.planner import NoPlan, Planner
from mcts_utils.servers.textcraft.world import load_world, text

OPENING = re.compile(
    r"Crafting commands:\n(?P<commands>.*?)\n\nGoal: craft (?P<goal>.*?)\.(?:\n|$)", re.DOTALL
)
ACTION = re.compile(r"^\s*Action\s*:\s*(.*)$", re.MULTILINE)
LOGGED = re.compile(r"^Action: (.*)\nObservation: (.*)$", re.MULTILINE)
CURRENT = re.compile(r"^Current action: (.*)\nCurrent observation: (.*)\Z", re.MULTILINE | re.DOTALL)
GOT = re.compile(r"Got (\d+) (.*)")
CRAFTED = re.compile(r"Crafted (\d+) minecraft:(\w+)")
USING = re.compile(r"craft \d+ .* using (.*)")
Turn = tuple[str, str]  # action, observation


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """The reply to a conversation; with probability `noise` a slip, or a wrong verdict to the judge's question."""
    opening = next(
        (m["content"] for m in messages if m["role"] == "user" and OPENING.search(m["content"])), None
    )
    if opening is None:
        return "Thought: I do not see a goal.\nAction: inventory"
    current = CURRENT.search(opening)
    if current:
        return _verdict(opening, (current[1], current[2]), rng, noise)
    return _move(opening, _turns(messages), rng, noise)


def _turns(messages: list[dict]) -> list[Turn]:
    """Actions and the observations that followed them."""
    pairs = []
    for said, heard in zip(messages, messages[1:], strict=False):
        if said["role"] == "assistant" and heard["role"] == "user":
            actions = ACTION.findall(said["content"])
            pairs.append((actions[-1].strip() if actions else said["content"].strip(), heard["content"]))
    return pairs


def _planner(opening: str) -> Planner:
    found = OPENING.search(opening)
    assert found is not None
    return Planner(load_world(), found["goal"].replace(" ", "_"), found["commands"].split("\n"))


def inventory_after(turns: list[Turn]) -> dict[str, int]:
    """What the player holds, by the observations."""
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


def _left(planner: Planner, turns: list[Turn]) -> int | None:
    """Actions still to do, or None without a plan."""
    try:
        return len(planner.plan(inventory_after(turns)))
    except NoPlan:
        return None


def _move(opening: str, turns: list[Turn], rng: random.Random, noise: float) -> str:
    planner = _planner(opening)
    try:
        plan = planner.plan(inventory_after(turns))
    except NoPlan:
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
    reason = f"I need {text(step.item)} for {text(step.purpose or planner.goal)}."
    return f"Thought: {reason}\nAction: {step.command}"


def _verdict(opening: str, current: Turn, rng: random.Random, noise: float) -> str:
    """Bad if refused or further from the goal, good if nearer, else uncertain."""
    before = LOGGED.findall(opening.split("\n\nLog:\n", 1)[-1])
    planner = _planner(opening)
    ahead, behind = _left(planner, before), _left(planner, [*before, current])
    goal_made = any(
        o.endswith(f" minecraft:{planner.goal}") and o.startswith("Crafted") for o in [current[1]]
    )
    if current[1].startswith(("Could not", "Wrong item format")):
        label, reason = "Bad", "The game refused this action."
    elif goal_made or (ahead is not None and behind is not None and behind < ahead):
        label, reason = "Good", "This brings the goal nearer."
    elif ahead is not None and (behind is None or behind > ahead):
        label, reason = "Bad", "After this the goal is further away."
    else:
        label, reason = "Uncertain", "This changes nothing that matters."
    if rng.random() < noise:
        label = rng.choice(["Good", "Bad", "Uncertain"])
    return f"{reason}\nJudgment: {label}"
