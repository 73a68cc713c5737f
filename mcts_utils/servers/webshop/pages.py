"""The pages as a player sees them: visible texts joined by ` [SEP] `, and what can be clicked. Pure.

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
    """What a click means: a button, a product's id, or a value of the option `option`."""

    kind: str  # "button", "product" or "option"
    option: str = ""


@dataclass(frozen=True)
class Page:
    """One page. `clicks` maps the lower-case text to click onto its meaning, in the order of /available_actions."""

    text: str
    clicks: Mapping[str, Click] = field(default_factory=dict)
    search_bar: bool = False


def joined(texts: Iterable[str]) -> str:
    """Texts as a browser without a screen reads them: an empty one, or one of blank lines, is no text at all."""
    return SEPARATOR.join(text.strip() for text in texts if text and (text.strip() or "\n" not in text))


def buttons(*names: str) -> dict[str, Click]:
    return {name.lower(): Click("button") for name in names}


def search_page(goal: str) -> Page:
    """Where every session starts."""
    return Page(joined(["WebShop", "Instruction:", goal, "Search"]), buttons("Search"), search_bar=True)


def results_page(goal: str, found: Sequence[Product], number: int) -> Page:
    """Page `number` (from 1) of the results; it has a next page whether there are more or not."""
    turns = [PREVIOUS, NEXT] if number > 1 else [NEXT]
    shown = found[(number - 1) * PAGE_SIZE : number * PAGE_SIZE]
    texts = ["Instruction:", goal, BACK, f"Page {number} (Total results: {len(found)})", *turns]
    for product in shown:
        texts += [product.asin, product.title, product.price_tag]
    clicks = buttons(BACK, *turns) | {product.asin.lower(): Click("product") for product in shown}
    return Page(joined(texts), clicks)


def item_page(goal: str, product: Product) -> Page:
    """One product. What was chosen does not show. Of two options with one value the later one is clicked."""
    texts = ["Instruction:", goal, BACK, PREVIOUS]
    clicks = buttons(BACK, PREVIOUS, *SUB_PAGES, BUY)
    for name, values in product.options.items():
        texts += [name, *values]
        clicks |= {value: Click("option", name) for value in values}
    texts += [product.title, f"Price: {product.price_tag}", "Rating: N.A.", *SUB_PAGES, BUY]
    return Page(joined(texts), clicks)


def sub_page(goal: str, product: Product, name: str) -> Page:
    """Description, Features or Reviews (there are no reviews) of a product."""
    content = {
        "Description": [product.description],
        # The blank stands before every bullet there, so that an empty one still makes a text.
        "Features": [f" {bullet}" for bullet in product.bullets],
        "Reviews": [],
    }[name]
    return Page(joined(["Instruction:", goal, BACK, PREVIOUS, *content]), buttons(BACK, PREVIOUS))


def done_page(product: Product, options: Mapping[str, str], reward: float) -> Page:
    """The end; it tells the reward, and of the goal nothing."""
    unknown = [text for name in ("attrs", "category", "query", "product category") for text in (name, "None")]
    target = [
        "asin",
        "options",
        "attrs",
        "price upper",
        "instuction text",
        "category",
        "product category",
        "query",
    ]
    texts = [
        *("Thank you for shopping with us!", "Your code:", "None", "(Paste it in your MTurk interface.)"),
        *("Purchased", "asin", product.asin, "options", options_shown(options), *unknown),
        *("Target", *target, "Goal", "None"),
        *("Reward", "Your score (min 0.0, max 1.0)", str(reward), "Reward Details", "None"),
    ]
    return Page(joined(texts))


def options_shown(options: Mapping[str, str]) -> str:
    """Options as the last page shows them: JSON with sorted keys, the signs of HTML escaped."""
    text = json.dumps(dict(options), sort_keys=True)
    for sign in "<>&'":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
