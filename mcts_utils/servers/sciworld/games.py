"""ScienceWorld's games in AgentGym's order, and the train/test split of their ids. Data only, no simulator.

A game's id is its index in the list: all variations of the first task, then of the next. games.json holds the tasks in
that order with their numbers of variations, and the test ids; a test compares both with the scienceworld package.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

DATA = Path(__file__).with_name("games.json")
TRAIN_VARIATIONS = 5  # variations of every task in the train part, as in AgentGym's split


@dataclass(frozen=True, slots=True)
class Game:
    """One variation of one task."""

    task: str  # e.g. "boil"
    variation: int  # from 0


@cache
def games() -> tuple[Game, ...]:
    """Return all games; a game's index is its id."""
    variations = json.loads(DATA.read_text(encoding="utf-8"))["variations"]
    return tuple(Game(task, number) for task, count in variations.items() for number in range(count))


@cache
def split() -> dict[str, list[int]]:
    """Return ids under "train" (the first five variations of each task, less test ids) and "test" (AgentGym's 200)."""
    held_out: list[int] = []
    for part in json.loads(DATA.read_text(encoding="utf-8"))["test"].split(","):
        first, _, last = part.partition("-")
        held_out += range(int(first), int(last or first) + 1)
    excluded = set(held_out)
    train = [
        index
        for index, game in enumerate(games())
        if game.variation < TRAIN_VARIATIONS and index not in excluded
    ]
    return {"train": train, "test": held_out}
