"""A shop of a few invented products, for the tests of the WebShop server."""

from __future__ import annotations

from typing import Any

from mcts_utils.servers.webshop.models import Goal, Product
from mcts_utils.servers.webshop.shop import Shop

LAMP: dict[str, Any] = {
    "asin": "B000000001",
    "title": "Acme Floor Lamp Brass",
    "description": "A lamp that lasts.",
    "bullets": ("long lasting bulb", "for living rooms"),
    "options": {"color": ("black", "navy blue"), "size": ("small", "x-large")},
    "attributes": ("brass finish", "easy assemble"),
    "price": 45.5,
    "price_tag": "$45.5",
    "query": "floor lamps",
    "category": "garden",
    "product_category": "Home › Lighting › Floor Lamps",
}


def product(**changes: Any) -> Product:
    """The lamp, but for the changes."""
    return Product(**{**LAMP, **changes})


def goal(**changes: Any) -> Goal:
    """A goal that the lamp meets, but for the changes."""
    fields: dict[str, Any] = {
        "content": "Find me floor lamps with brass finish with color: black, and size: small",
        "clause": ", and price lower than 50.00 dollars",
        "limit": 50.0,
        "attributes": ("brass finish", "long lasting"),
        "options": (("color", "black"), ("size", "small")),
        "target": product(),
    }
    return Goal(**{**fields, **changes})


def shop() -> Shop:
    """The lamp, 59 more lamps without options and one rug; two goals."""
    others = [
        product(
            asin=f"B1{number:08}", title=f"Acme Table Lamp {number}", options={}, price_tag=f"${number}.0"
        )
        for number in range(59)
    ]
    rug = product(
        asin="B200000000",
        title="Wool Rug",
        query="area rugs",
        category="rugs",
        description="",
        bullets=("",),
        options={"color": ("red",), "finish": ("red", "matte")},
        product_category="Home › Floor › Rugs",
    )
    return Shop(
        [product(), *others, rug],
        [goal(), goal(content="Find me area rugs", clause="", options=(), target=rug)],
    )
