"""Answers to ScienceWorld conversations from known paths, with slips: what a scripted chat endpoint says.

It reads text only. It knows the demo games of gold.json (make_gold.py), tells them by their openings, and tells its
place in the path by the actions done. It also answers the judge's question (the opening, a log, one current action and
its observation).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mcts_utils.servers.transcript import CURRENT, Turn, turns

DATA = Path(__file__).with_name("gold.json")
LOGGED = re.compile(r"^Action: (.*)\nObservation: ((?:(?!^Action: |^Current action: ).*\n)*)", re.MULTILINE)
REFUSED = ("No known action", "Ambiguous request", "Unknown action", "I'm not sure", "It's not clear")
IDLE = ("look around", "inventory", "task")  # no time passes, nothing changes
GIVEN_UP = 2  # idle turns in a row
TRAP = "focus on agent"
# Chances of the slips, summing to 1: at noise 0.3 some paths are lost, others are only longer.
SLIPS = {"refused": 0.5, "idle": 0.35, "trap": 0.15}


@dataclass(frozen=True, slots=True)
class Known:
    """A game with a path that solves it."""

    id: int
    task: str
    trap: bool  # a wrong focus ends it
    path: tuple[str, ...]


def opening_key(opening: str) -> str:
    """Digest of an opening that does not depend on the order of its lines."""
    lines = sorted(line.strip() for line in opening.splitlines() if line.strip())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def known() -> dict[str, Known]:
    """Demo games by the key of their openings."""
    rows = [row for some in _data().values() for row in some]
    return {r["key"]: Known(r["id"], r["task"], r["trap"], tuple(r["path"])) for r in rows}


@cache
def demo_ids(part: str) -> tuple[int, ...]:
    """Ids of the demo games in the "train" or the "test" part of the split."""
    return tuple(row["id"] for row in _data()[part])


@cache
def _data() -> dict[str, list[dict]]:
    return json.loads(DATA.read_text(encoding="utf-8"))


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """The reply to a conversation; with probability `noise` a slip, or a wrong verdict to the judge's question."""
    first = next((m["content"] for m in messages if m["role"] == "user"), "")
    opening = first.split("\n\nLog:\n", 1)[0]
    game = known().get(opening_key(opening))
    current = CURRENT.search(first)
    if current:
        return _verdict(game, first, (current[1], current[2]), rng, noise)
    if game is None:
        return "Thought: I do not know this place.\nAction: look around"
    return _move(game, turns(messages), rng, noise)


def _place(path: tuple[str, ...], turns: list[Turn]) -> int:
    """How many actions of the path are done. A question back ("Ambiguous request") counts if the path answers it."""
    place = 0
    for action, observation in turns:
        if place < len(path) and action == path[place]:
            asked_back = observation.startswith("Ambiguous") and path[place + 1 : place + 2] == ("0",)
            if asked_back or not observation.startswith(REFUSED):
                place += 1
    return place


def _idle(path: tuple[str, ...], turns: list[Turn]) -> int:
    """How many of the last turns in a row were idle, and no step of the path."""
    count = 0
    while count < len(turns) and turns[-count - 1][0] in IDLE:
        end = len(turns) - count
        if _place(path, turns[:end]) > _place(path, turns[: end - 1]):
            break
        count += 1
    return count


def _move(game: Known, turns: list[Turn], rng: random.Random, noise: float) -> str:
    place = _place(game.path, turns)
    idle = _idle(game.path, turns)
    if place == len(game.path) or (noise > 0 and idle >= GIVEN_UP):
        return "Thought: I do not know what else to do.\nAction: look around"
    step = game.path[place]
    slips = rng.random() < noise and not step.isdigit()
    if not slips:
        return f"Thought: Step {place + 1} of my plan is next.\nAction: {step}"
    kind = rng.choices(list(SLIPS), list(SLIPS.values()))[0]
    focused = any(action.startswith("focus on") for action in game.path[:place])
    if kind == "trap" and game.trap and not focused:
        return f"Thought: This should be what I look for.\nAction: {TRAP}"
    if kind == "idle" or idle:
        return f"Thought: I should see where I am.\nAction: {rng.choice(IDLE)}"
    wrong = f"{step.split(' ', 1)[0]} the golden {rng.choice(('key', 'lamp', 'egg'))}"
    return f"Thought: I will try this now.\nAction: {wrong}"


def _verdict(game: Known | None, question: str, current: Turn, rng: random.Random, noise: float) -> str:
    """Bad if refused, fatal or idle; good if it is the next action of the path; else uncertain."""
    log = question.split("\n\nLog:\n", 1)[-1].split("\nCurrent action: ", 1)[0] + "\n"
    before = [(action, observation) for action, observation in LOGGED.findall(log)]
    action, observation = current
    path = game.path if game else ()
    if _place(path, [*before, current]) > _place(path, before):
        label, reason = "Good", "This is the next step of a plan that works."
    elif observation.startswith(REFUSED):
        label, reason = "Bad", "The environment refused this action."
    elif action.startswith("focus on"):
        label, reason = "Bad", "This focuses on the wrong thing."
    elif action in IDLE or action.startswith("wait"):
        label, reason = "Bad", "This brings nothing about."
    else:
        label, reason = "Uncertain", "What this is good for does not show."
    if rng.random() < noise:
        label = rng.choice(["Good", "Bad", "Uncertain"])
    return f"{reason}\nJudgment: {label}"
