"""A planner for goals of the bundled catalogue: the next action, the number of actions left, and likely mistakes.

It knows the catalogue, so it is an oracle: which products pay 1 for a goal, and on which page of a search they are. It
reads no conversations.
"""

from __future__ import annotations

import re
from functools import lru_cache

from mcts_utils.servers.webshop.models import Goal, Product
from mcts_utils.servers.webshop.page_state import OptionsByTitle, PageState
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
def options_by_title() -> OptionsByTitle:
    """Return the options of every product, by its title."""
    return {title: product.options for title, product in _titles().items()}


def known_goal(instruction: str) -> Goal | None:
    """Return the goal of the bundled catalogue that an instruction names, or None."""
    return _goals().get(CLAUSE.sub("", instruction))


@lru_cache(maxsize=65536)
def perfect(content: str, asin: str) -> bool:
    """Return True if a product pays 1 for a goal, with the options that the goal names.

    Args:
        content: identifies the goal.
        asin: identifies the product, in any case.
    """
    goal, product = _goals()[content], bundled_shop().by_asin[asin.lower()]
    offered = all(value in product.options.get(name, ()) for name, value in goal.options)
    return offered and reward(product, dict(goal.options), goal).total == 1


def at_perfect(state: PageState, goal: Goal) -> bool:
    """Return True if the open product is one that pays 1."""
    product = _titles().get(state.title)
    return product is not None and perfect(goal.content, product.asin)


def perfect_pages(goal: Goal, keywords: str) -> tuple[int, ...]:
    """Return the numbers (from 1) of the results pages on which a search shows a perfect product."""
    found = bundled_shop().found(tuple(keywords.lower().split(" "))) if keywords else ()
    hits = (i for i, product in enumerate(found) if perfect(goal.content, product.asin))
    return tuple(sorted({i // PAGE_SIZE + 1 for i in hits}))


@lru_cache(maxsize=65536)
def search_words(content: str) -> str:
    """Return what to search for: the goal's words if a perfect product is on page 1 or 2, else the target's title."""
    goal = _goals()[content]
    words = content.removeprefix("Find me ")
    pages = perfect_pages(goal, words)
    return words if pages and pages[0] <= 2 else goal.target.title.lower()


def missing_options(state: PageState, goal: Goal) -> list[tuple[str, str]]:
    """Return the goal's options that are not chosen, as (name, value)."""
    return [(name, value) for name, value in goal.options if state.chosen.get(name) != value]


def actions_left(state: PageState, goal: Goal) -> int:
    """Return the number of actions that the plan still has."""
    kind, to_buy = state.page.kind, len(goal.options) + 2  # click on the product, its options, Buy Now
    if kind == "done":
        return 0
    if kind in ("item", "sub"):
        back = 1 if kind == "sub" else 0  # to the product
        if at_perfect(state, goal):
            return back + len(missing_options(state, goal)) + 1
        return back + 1 + _from_results(goal, state.keywords, state.number, to_buy)
    if kind == "results":
        return _from_results(goal, state.keywords, state.number, to_buy)
    return 1 + _from_results(goal, search_words(goal.content), 1, to_buy)


def _from_results(goal: Goal, keywords: str, number: int, to_buy: int) -> int:
    pages = perfect_pages(goal, keywords)
    if pages:
        return min(abs(page - number) for page in pages) + to_buy
    return 2 + _from_results(goal, search_words(goal.content), 1, to_buy)  # back, and a better search


def next_action(state: PageState, goal: Goal) -> tuple[str, str]:
    """Return the reason and the plan's next action."""
    if state.page.kind == "results":
        return _action_in_results(state, goal)
    if state.page.kind == "sub":
        return "I have read enough here.", "click[< prev]"
    if state.page.kind == "item":
        if not at_perfect(state, goal):
            return "This one does not meet the instruction.", "click[< prev]"
        if rest := missing_options(state, goal):
            return f"The {rest[0][0]} should be {rest[0][1]}.", f"click[{rest[0][1]}]"
        return "Everything that was asked for is there.", "click[buy now]"
    if state.page.kind == "done":
        return "The purchase is done.", "click[buy now]"
    return "I search for what was asked.", f"search[{search_words(goal.content)}]"


def _action_in_results(state: PageState, goal: Goal) -> tuple[str, str]:
    good = next((asin for asin in state.page.asins if perfect(goal.content, asin)), None)
    if good is not None:
        return f"{good} meets the instruction.", f"click[{good.lower()}]"
    pages = perfect_pages(goal, state.keywords)
    if not pages:
        return "None of these will do.", "click[back to search]"
    nearest = min(pages, key=lambda page: abs(page - state.number))
    if nearest < state.number:
        return "The page before had a better one.", "click[< prev]"
    return "I look at further results.", "click[next >]"


def slips(state: PageState, goal: Goal) -> list[str]:
    """Return wrong or useless actions that look sensible here; likelier ones are listed twice."""
    if state.page.kind == "search":
        return [f"search[{goal.target.query}]", f"search[{goal.attributes[0]}]"]
    if state.page.kind == "results":
        wrong = [asin for asin in state.page.asins if not perfect(goal.content, asin)]
        return [*(f"click[{asin.lower()}]" for asin in wrong[:3]), "click[next >]"]
    if state.page.kind == "sub":
        return ["click[buy now]", "click[back to search]"]
    return _slips_at_product(state, goal) if state.page.kind == "item" else []


def _slips_at_product(state: PageState, goal: Goal) -> list[str]:
    offered, rest = options_by_title().get(state.title, {}), missing_options(state, goal)
    actions = ["click[description]"]
    for name, value in rest:
        actions += [f"click[{other}]" for other in offered.get(name, ()) if other != value][:1]
    if not at_perfect(state, goal):
        actions += [f"click[{value}]" for name, value in rest[:1] if value in offered.get(name, ())]
    if rest or not at_perfect(state, goal):
        actions += ["click[buy now]"] * 2
    return actions
