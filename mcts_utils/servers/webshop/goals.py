"""Goals and their order: WebShop's rules for price limits, option combinations and the shuffle. Pure.

The official files give two kinds of goals. Synthetic ones are those of AgentGym's server: every combination of a
product's options is a goal. Human ones are WebShop's own 12,087 instructions. Both lists are shuffled with the same
seed, so an index means the same goal on every server that has the same files.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcts_utils.servers.webshop.models import NO_LIMIT, Goal, Product

SEED = 233  # for the price limits and for the order
LIMITS = tuple(10.0 * step for step in range(1, 100))  # dollars
LIMITS_NEAR = 4  # a limit is one of the next four above the price
TEST_SHARE = 0.2  # of the goals' contents, in the test part of our own split


@dataclass(frozen=True)
class Instruction:
    """An instruction of the official files, from which goals are made."""

    product: Product
    text: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()  # of human ones; synthetic ones get every combination


def limit_and_clause(price: float, rng: random.Random) -> tuple[float, str]:
    """Return a price limit in dollars and its clause in the instruction.

    The limit is the higher one of two that are drawn from the next limits above the price.
    """
    near = [limit for limit in LIMITS if limit > price][:LIMITS_NEAR]
    if len(near) < 2:
        return NO_LIMIT, ""
    limit = max(rng.sample(near, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def with_options(text: str, options: Iterable[tuple[str, str]]) -> str:
    """Return a text with options: `Find me shirts` -> `Find me shirts with color: red, and size: small`."""
    listed = ", and ".join(f"{name}: {value}" for name, value in options)
    return f"{text} with {listed}" if listed else text


def synthetic_goals(instructions: Iterable[Instruction]) -> list[Goal]:
    """Return a goal for every option combination of every instruction, in AgentGym's order."""
    rng = random.Random(SEED)
    goals = []
    for given in instructions:
        limit, clause = limit_and_clause(given.product.price, rng)
        names = sorted(given.product.options)
        for values in itertools.product(*(given.product.options[name] for name in names)):
            options = tuple(zip(names, values, strict=True))
            text = with_options(given.text, options)
            goals.append(Goal(text, clause, limit, given.attributes, options, given.product))
    return shuffled(goals)


def human_goals(instructions: Iterable[Instruction]) -> list[Goal]:
    """Return a goal for every instruction that has attributes, in WebShop's order."""
    rng = random.Random(SEED)
    goals = []
    for given in instructions:
        if given.attributes:
            limit, clause = limit_and_clause(given.product.price, rng)
            text = given.text.strip(".")
            goals.append(Goal(text, clause, limit, given.attributes, given.options, given.product))
    return shuffled(goals)


def shuffled(goals: Sequence[Goal]) -> list[Goal]:
    """Return the goals in the order of their indices; the shuffle depends only on the number of goals."""
    order = list(goals)
    random.Random(SEED).shuffle(order)
    return order


def split(goals: Sequence[Goal]) -> dict[str, list[int]]:
    """Return goal indices under "train" and "test"; goals that differ only in the price clause are in the same part."""
    contents = sorted({goal.content for goal in goals}, key=lambda c: hashlib.sha256(c.encode()).digest())
    test = set(contents[: round(TEST_SHARE * len(contents))])
    halves: dict[str, list[int]] = {"train": [], "test": []}
    for index, goal in enumerate(goals):
        halves["test" if goal.content in test else "train"].append(index)
    return halves
