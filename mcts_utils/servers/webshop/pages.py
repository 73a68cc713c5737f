"""The pages as an agent sees them: visible texts joined by ` [SEP] `, and the clicks that a page offers. Pure.

Texts and their order are those of AgentGym's WebShop server in its text mode.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mcts_utils.servers.webshop.models import Product

SEPARATOR = " [SEP] "
PAGE_SIZE = 10
SUB_PAGES = ("Description", "Features", "Reviews")
BACK, PREVIOUS, NEXT, BUY = "Back to Search", "< Prev", "Next >", "Buy Now"


@dataclass(frozen=True)
class Click:
    """The meaning of a click: a button, a product's id, or a value of an option."""

    kind: str  # "button", "product" or "option"
    option: str = ""  # the option's name


@dataclass(frozen=True)
class Page:
    """One page."""

    text: str
    # By lower-case text, in the order of /available_actions.
    clicks: Mapping[str, Click] = field(default_factory=dict)
    search_bar: bool = False


def joined(texts: Iterable[str]) -> str:
    """Join texts as AgentGym's text mode does: empty ones, and those of blank lines, are left out."""
    return SEPARATOR.join(text.strip() for text in texts if text and (text.strip() or "\n" not in text))


def buttons(*names: str) -> dict[str, Click]:
    """Return the clicks of some buttons."""
    return {name.lower(): Click("button") for name in names}


def search_page(goal: str) -> Page:
    """Return the first page of every session."""
    return Page(joined(["WebShop", "Instruction:", goal, "Search"]), buttons("Search"), search_bar=True)


def results_page(goal: str, found: Sequence[Product], number: int) -> Page:
    """Return page `number` (from 1) of the results; it always offers a next page, even after the last result."""
    page_buttons = [PREVIOUS, NEXT] if number > 1 else [NEXT]
    shown = found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    texts = ["Instruction:", goal, BACK, f"Page {number} (Total results: {len(found)})", *page_buttons]
    for product in shown:
        texts += [product.asin, product.title, product.price_tag]
    clicks = buttons(BACK, *page_buttons) | {product.asin.lower(): Click("product") for product in shown}
    return Page(joined(texts), clicks)


def item_page(goal: str, product: Product) -> Page:
    """Return the page of a product. It does not show the chosen options.

    A value that two options share means the later one.
    """
    texts = ["Instruction:", goal, BACK, PREVIOUS]
    clicks = buttons(BACK, PREVIOUS, *SUB_PAGES, BUY)
    for name, values in product.options.items():
        texts += [name, *values]
        clicks |= {value: Click("option", name) for value in values}
    texts += [product.title, f"Price: {product.price_tag}", "Rating: N.A.", *SUB_PAGES, BUY]
    return Page(joined(texts), clicks)


def sub_page(goal: str, product: Product, name: str) -> Page:
    """Return the page of a product's Description, Features or Reviews (there are no reviews)."""
    content = {
        "Description": [product.description],
        # The public server puts a blank before every bullet, so an empty one still makes a text.
        "Features": [f" {bullet}" for bullet in product.bullets],
        "Reviews": [],
    }[name]
    return Page(joined(["Instruction:", goal, BACK, PREVIOUS, *content]), buttons(BACK, PREVIOUS))


def done_page(product: Product, options: Mapping[str, str], reward: float) -> Page:
    """Return the last page; it shows the reward, but nothing of the goal."""
    unknown = [text for name in ("attrs", "category", "query", "product category") for text in (name, "None")]
    target = "asin, options, attrs, price upper, instuction text, category, product category, query".split(
        ", "
    )
    texts = [
        *("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)"),
        *("Purchased", "asin", product.asin, "options", options_shown(options), *unknown),
        *("Target", *target, "Goal", "None"),
        *("Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details", "None"),
    ]
    return Page(joined(texts))


def options_shown(options: Mapping[str, str]) -> str:
    """Return options as the last page shows them: JSON with sorted keys, HTML's special characters escaped."""
    text = json.dumps(dict(options), sort_keys=True)
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
