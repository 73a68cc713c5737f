"""The scripted ScienceWorld expert: answers conversations from known paths, with slips, for the mock LLM.

It reads the conversation's text only. It knows the demo games of gold.json (made by make_gold.py), recognises them by
their openings, and finds its position in the path from the actions done. It also answers the judge's question (the
opening, a log, one current action and its observation).
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mcts_utils.servers.transcript import CURRENT, Turn, turns, verdict

DATA = Path(__file__).with_name("gold.json")
LOGGED = re.compile(r"^Action: (.*)\nObservation: ((?:(?!^Action: |^Current action: ).*\n)*)", re.MULTILINE)
REFUSED = ("No known action", "Ambiguous request", "Unknown action", "I'm not sure", "It's not clear")
IDLE = ("look around", "inventory", "task")  # actions that take no time and change nothing
GIVEN_UP = 2  # idle turns in a row after which a noisy expert only looks around
TRAP = "focus on agent"
# Probabilities of the kinds of slip, summing to 1: at noise 0.3 some episodes fail, others are only longer.
SLIPS = {"refused": 0.5, "idle": 0.35, "trap": 0.15}


@dataclass(frozen=True, slots=True)
class KnownGame:
    """A game with a path that solves it."""

    id: int
    task: str
    trap: bool  # a wrong focus ends the game with a negative score
    path: tuple[str, ...]  # actions


def opening_key(opening: str) -> str:
    """Return a digest of an opening that does not depend on the order of its lines."""
    lines = sorted(line.strip() for line in opening.splitlines() if line.strip())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


@cache
def known_games() -> dict[str, KnownGame]:
    """Return the demo games by the key of their openings."""
    rows = [row for part in _data().values() for row in part]
    return {r["key"]: KnownGame(r["id"], r["task"], r["trap"], tuple(r["path"])) for r in rows}


@cache
def demo_ids(part: str) -> tuple[int, ...]:
    """Return the ids of the demo games in the "train" or the "test" part of the split."""
    return tuple(row["id"] for row in _data()[part])


@cache
def _data() -> dict[str, list[dict]]:
    return json.loads(DATA.read_text(encoding="utf-8"))


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """Return the reply to a conversation.

    With probability `noise` it is a slip; a verdict on the judge's question is then a random one.
    """
    first = next((m["content"] for m in messages if m["role"] == "user"), "")
    opening = first.split("\n\nLog:\n", 1)[0]
    game = known_games().get(opening_key(opening))
    current = CURRENT.search(first)
    if current:
        return _verdict(game, first, (current[1], current[2]), rng, noise)
    if game is None:
        return "Thought: I do not know this place.\nAction: look around"
    return _move(game, turns(messages), rng, noise)


def _position(path: tuple[str, ...], turns: list[Turn]) -> int:
    """Return the number of the path's actions that are done.

    An action that the game answers with a question ("Ambiguous request") counts if the path answers it.
    """
    position = 0
    for action, observation in turns:
        if position < len(path) and action == path[position]:
            asked_back = observation.startswith("Ambiguous") and path[position + 1 : position + 2] == ("0",)
            if asked_back or not observation.startswith(REFUSED):
                position += 1
    return position


def _idle_turns(path: tuple[str, ...], turns: list[Turn]) -> int:
    """Return the number of last turns in a row that were idle and no step of the path."""
    count = 0
    while count < len(turns) and turns[-count - 1][0] in IDLE:
        end = len(turns) - count
        if _position(path, turns[:end]) > _position(path, turns[: end - 1]):
            break
        count += 1
    return count


def _move(game: KnownGame, turns: list[Turn], rng: random.Random, noise: float) -> str:
    position = _position(game.path, turns)
    idle = _idle_turns(game.path, turns)
    if position == len(game.path) or (noise > 0 and idle >= GIVEN_UP):
        return "Thought: I do not know what else to do.\nAction: look around"
    step = game.path[position]
    slip = rng.random() < noise and not step.isdigit()
    if not slip:
        return f"Thought: Step {position + 1} of my plan is next.\nAction: {step}"
    kind = rng.choices(list(SLIPS), list(SLIPS.values()))[0]
    focused = any(action.startswith("focus on") for action in game.path[:position])
    if kind == "trap" and game.trap and not focused:
        return f"Thought: This should be what I look for.\nAction: {TRAP}"
    if kind == "idle" or idle:
        return f"Thought: I should see where I am.\nAction: {rng.choice(IDLE)}"
    wrong = f"{step.split(' ', 1)[0]} the golden {rng.choice(('key', 'lamp', 'egg'))}"
    return f"Thought: I will try this now.\nAction: {wrong}"


def _verdict(game: KnownGame | None, question: str, current: Turn, rng: random.Random, noise: float) -> str:
    """Return Good for the next action of the path, Bad for a refused, fatal or idle action, else Uncertain."""
    log = question.split("\n\nLog:\n", 1)[-1].split("\nCurrent action: ", 1)[0] + "\n"
    before = [(action, observation) for action, observation in LOGGED.findall(log)]
    action, observation = current
    path = game.path if game else ()
    if _position(path, [*before, current]) > _position(path, before):
        label, reason = "Good", "This is the next step of a plan that works."
    elif observation.startswith(REFUSED):
        label, reason = "Bad", "The environment refused this action."
    elif action.startswith("focus on"):
        label, reason = "Bad", "This focuses on the wrong thing."
    elif action in IDLE or action.startswith("wait"):
        label, reason = "Bad", "This brings nothing about."
    else:
        label, reason = "Uncertain", "What this is good for does not show."
    return verdict(label, reason, rng, noise)
