"""What to do next for a goal of the bundled catalogue, how much is left, which mistakes lie near. No conversations.

The planner knows the catalogue by heart: which products pay 1 for a goal, and on which page of a search they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from mcts_utils.servers.webshop.models import Goal, Product
from mcts_utils.servers.webshop.page_state import Situation
from mcts_utils.servers.webshop.pages import PAGE_SIZE
from mcts_utils.servers.webshop.reward import reward
from mcts_utils.servers.webshop.shop import bundled_shop

CLAUSE = re.compile(r", and price lower than [\d.]+ dollars$")


@lru_cache(maxsize=1)
def _goals() -> dict[str, Goal]:
    return {goal.content: goal for goal in bundled_shop().goals}


@lru_cache(maxsize=1)
def _titles() -> dict[str, Product]:
    return {product.title: product for product in bundled_shop().products}


@lru_cache(maxsize=1)
def options_by_title() -> dict[str, Mapping[str, tuple[str, ...]]]:
    """What can be chosen on the page of each product."""
    return {title: product.options for title, product in _titles().items()}


def known(instruction: str) -> Goal | None:
    """The goal of the bundled catalogue that an instruction names."""
    return _goals().get(CLAUSE.sub("", instruction))


@lru_cache(maxsize=65536)
def perfect(content: str, asin: str) -> bool:
    """True if a product pays 1 for a goal, with the options that the goal names."""
    goal, product = _goals()[content], bundled_shop().by_asin[asin.lower()]
    offered = all(value in product.options.get(name, ()) for name, value in goal.options)
    return offered and reward(product, dict(goal.options), goal).total == 1


def at_perfect(now: Situation, goal: Goal) -> bool:
    """True if the product looked at is one that pays 1."""
    product = _titles().get(now.title)
    return product is not None and perfect(goal.content, product.asin)


def pages_to_turn(goal: Goal, keywords: str) -> tuple[int, ...]:
    """The results pages (from 1) on which a search shows a perfect product."""
    found = bundled_shop().found(tuple(keywords.lower().split(" "))) if keywords else ()
    hits = (place for place, product in enumerate(found) if perfect(goal.content, product.asin))
    return tuple(sorted({place // PAGE_SIZE + 1 for place in hits}))


@lru_cache(maxsize=65536)
def query(content: str) -> str:
    """What to search for: the goal's words if that finds it soon, or else the target's title."""
    goal = _goals()[content]
    words = content.removeprefix("Find me ")
    pages = pages_to_turn(goal, words)
    return words if pages and pages[0] <= 2 else goal.target.title.lower()


def missing(now: Situation, goal: Goal) -> list[tuple[str, str]]:
    """The goal's options that are not chosen."""
    return [(name, value) for name, value in goal.options if now.chosen.get(name) != value]


def left(now: Situation, goal: Goal) -> int:
    """How many actions the plan still has."""
    kind, to_buy = now.seen.kind, len(goal.options) + 2  # the product's click, its options, Buy Now
    if kind == "done":
        return 0
    if kind in ("item", "sub"):
        aside = 1 if kind == "sub" else 0
        if at_perfect(now, goal):
            return aside + len(missing(now, goal)) + 1
        return aside + 1 + _from_results(goal, now.keywords, now.number, to_buy)
    if kind == "results":
        return _from_results(goal, now.keywords, now.number, to_buy)
    return 1 + _from_results(goal, query(goal.content), 1, to_buy)


def _from_results(goal: Goal, keywords: str, number: int, to_buy: int) -> int:
    pages = pages_to_turn(goal, keywords)
    if pages:
        return min(abs(page - number) for page in pages) + to_buy
    return 2 + _from_results(goal, query(goal.content), 1, to_buy)  # back, and a better search


def move(now: Situation, goal: Goal) -> tuple[str, str]:
    """The plan's next action and why."""
    if now.seen.kind == "results":
        return _move_in_results(now, goal)
    if now.seen.kind == "sub":
        return "I have read enough here.", "click[< prev]"
    if now.seen.kind == "item":
        if not at_perfect(now, goal):
            return "This one does not meet the instruction.", "click[< prev]"
        if rest := missing(now, goal):
            return f"The {rest[0][0]} should be {rest[0][1]}.", f"click[{rest[0][1]}]"
        return "Everything that was asked for is there.", "click[buy now]"
    if now.seen.kind == "done":
        return "The purchase is done.", "click[buy now]"
    return "I search for what was asked.", f"search[{query(goal.content)}]"


def _move_in_results(now: Situation, goal: Goal) -> tuple[str, str]:
    good = next((asin for asin in now.seen.asins if perfect(goal.content, asin)), None)
    if good is not None:
        return f"{good} meets the instruction.", f"click[{good.lower()}]"
    pages = pages_to_turn(goal, now.keywords)
    if not pages:
        return "None of these will do.", "click[back to search]"
    nearest = min(pages, key=lambda page: abs(page - now.number))
    if nearest < now.number:
        return "The page before had a better one.", "click[< prev]"
    return "I look at further results.", "click[next >]"


def slips(now: Situation, goal: Goal) -> list[str]:
    """Wrong or useless actions that look sensible here; likelier ones stand twice."""
    if now.seen.kind == "search":
        return [f"search[{goal.target.query}]", f"search[{goal.attributes[0]}]"]
    if now.seen.kind == "results":
        wrong = [asin for asin in now.seen.asins if not perfect(goal.content, asin)]
        return [*(f"click[{asin.lower()}]" for asin in wrong[:3]), "click[next >]"]
    if now.seen.kind == "sub":
        return ["click[buy now]", "click[back to search]"]
    return _slips_at_product(now, goal) if now.seen.kind == "item" else []


def _slips_at_product(now: Situation, goal: Goal) -> list[str]:
    offered, rest = options_by_title().get(now.title, {}), missing(now, goal)
    actions = ["click[description]"]
    for name, value in rest:
        actions += [f"click[{other}]" for other in offered.get(name, ()) if other != value][:1]
    if not at_perfect(now, goal):
        actions += [f"click[{value}]" for name, value in rest[:1] if value in offered.get(name, ())]
    if rest or not at_perfect(now, goal):
        actions += ["click[buy now]"] * 2
    return actions
