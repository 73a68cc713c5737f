"""What a shop is made of: products and goals. Plain records; no rules, no files, no pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NO_LIMIT = 1_000_000.0  # dollars: the limit of a goal without a price clause


@dataclass(frozen=True, slots=True)
class Product:
    """One product as the pages show it and the reward reads it."""

    asin: str  # at most 10 characters
    title: str
    description: str
    bullets: tuple[str, ...]  # the Features page
    options: Mapping[str, tuple[str, ...]]  # option name -> values; names and values in lower case
    attributes: tuple[str, ...]  # on no page of their own; the reward reads them
    price: float  # dollars; a fixed one inside the tag's range
    price_tag: str  # as shown: "$10.99", or "$10.99 to $15.99"
    query: str  # the product kind under which it was listed, in lower case
    category: str  # "beauty"
    product_category: str  # levels joined by " › "


@dataclass(frozen=True, slots=True)
class Goal:
    """What to buy. Only `text` is shown to the player."""

    content: str  # the instruction without its price clause: names the goal wherever it stands
    clause: str  # ", and price lower than 50.00 dollars", or ""
    limit: float  # dollars
    attributes: tuple[str, ...]
    options: tuple[tuple[str, str], ...]  # (option name, or "" where people wrote the goal; value)
    target: Product  # one product that pays 1 if its price is within the limit

    @property
    def text(self) -> str:
        """The instruction."""
        return self.content + self.clause
