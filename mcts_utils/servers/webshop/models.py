"""Products and goals of a shop: plain records without rules, files or pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NO_LIMIT = 1_000_000.0  # dollars: the limit of a goal without a price clause


@dataclass(frozen=True, slots=True)
class Product:
    """One product."""

    asin: str  # at most 10 characters
    title: str
    description: str
    bullets: tuple[str, ...]  # the Features page
    options: Mapping[str, tuple[str, ...]]  # option name -> values; names and values in lower case
    attributes: tuple[str, ...]  # read by the reward; no page lists them
    price: float  # dollars; within the tag's range
    price_tag: str  # as shown: "$10.99", or "$10.99 to $15.99"
    query: str  # the kind of product under which it is listed, in lower case
    category: str  # such as "beauty"
    product_category: str  # levels joined by " › "


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy. Only `text` is shown to the agent."""

    content: str  # the instruction without its price clause; identifies the goal, whatever its index
    clause: str  # ", and price lower than 50.00 dollars", or ""
    limit: float  # dollars, the highest price that is allowed
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]  # (option name, or "" for goals written by people; value)
    target: Product  # a product that pays 1 if its price is within the limit

    @property
    def text(self) -> str:
        """The instruction with its price clause."""
        return self.content + self.clause
