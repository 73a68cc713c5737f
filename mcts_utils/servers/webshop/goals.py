"""Instructions and their order: WebShop's rules for price limits, option combinations and the shuffle. Pure.

Two kinds of goals come out of the official files. Synthetic ones are what AgentGym's server plays: every combination
of a product's options is a goal. Human ones are WebShop's own 12,087 instructions. Either list is shuffled by one seed,
so an index means the same goal in every server that has the same files.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mcts_utils.servers.webshop.models import NO_LIMIT, Goal, Product

SEED = 233  # of the price limits and of the order
LIMITS = tuple(10.0 * step for step in range(1, 100))  # dollars
LIMITS_NEAR = 4  # a limit is one of the next four above the price
TEST_SHARE = 0.2  # of the goals that our own split tests with


@dataclass(frozen=True)
class Instruction:
    """A text of the official files that goals are made of."""

    product: Product
    text: str
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()  # of a human one; a synthetic one takes every combination


def limit_and_clause(price: float, rng: random.Random) -> tuple[float, str]:
    """A limit above the price, and how the instruction says it: the higher one of two that are drawn."""
    near = [limit for limit in LIMITS if limit > price][:LIMITS_NEAR]
    if len(near) < 2:
        return NO_LIMIT, ""
    limit = max(rng.sample(near, 2))
    return limit, f", and price lower than {limit:.2f} dollars"


def with_options(text: str, options: Iterable[tuple[str, str]]) -> str:
    """`Find me shirts` -> `Find me shirts with color: red, and size: small`."""
    listed = ", and ".join(f"{name}: {value}" for name, value in options)
    return f"{text} with {listed}" if listed else text


def synthetic_goals(instructions: Iterable[Instruction]) -> list[Goal]:
    """All option combinations of every instruction, in AgentGym's order."""
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
    """One goal per instruction with attributes, in WebShop's order."""
    rng = random.Random(SEED)
    goals = []
    for given in instructions:
        if given.attributes:
            limit, clause = limit_and_clause(given.product.price, rng)
            text = given.text.strip(".")
            goals.append(Goal(text, clause, limit, given.attributes, given.options, given.product))
    return shuffled(goals)


def shuffled(goals: Sequence[Goal]) -> list[Goal]:
    """The order of the indices: it depends on the number of goals alone."""
    order = list(goals)
    random.Random(SEED).shuffle(order)
    return order


def split(goals: Sequence[Goal]) -> dict[str, list[int]]:
    """Indices by content: goals that differ in the price clause alone are on one side."""
    contents = sorted({goal.content for goal in goals}, key=lambda c: hashlib.sha256(c.encode()).digest())
    test = set(contents[: round(TEST_SHARE * len(contents))])
    halves: dict[str, list[int]] = {"train": [], "test": []}
    for index, goal in enumerate(goals):
        halves["test" if goal.content in test else "train"].append(index)
    return halves
