"""The reward of a purchase: the terms of WebShop's reward (Yao et al. 2022, section 3), one function each. Pure.

    reward = type * (attributes met + options met + price met) / (|attributes| + |options| + 1)

The thresholds are the original's. One rule differs: the original finds a title's nouns with a spaCy model; here they
are its words without numbers, function words and a list of shop adjectives (title_nouns).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from rapidfuzz import fuzz, utils

from mcts_utils.servers.webshop.models import Goal, Product

SAME = 85  # a token-set ratio above this, out of 100, is a match
LATIN_1_REST = dict.fromkeys(range(128, 256))  # dropped before strings are compared
# The colour of an option is the first of these, in alphabetical order, that its text contains ("navy blue" is blue).
COLOURS = tuple(
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy "
    "camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral "
    "cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite "
    "grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta "
    "maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange "
    "peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell silver skull slate "
    "steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow".split()
)
# Words of titles that are rarely nouns, which a tagger would drop. Colours and brands stay, as in the original.
NOT_NOUNS = frozenset(
    "a an and or of for with without in on at by from to into the your our its it is are be as up out off "
    "over under no non not all any each more most very ultra extra super new best good great free easy soft "
    "long short slim big small large medium high low wide deep thick thin light heavy adjustable portable "
    "reusable washable durable waterproof removable rechargeable compatible foldable comfortable breathable "
    "lightweight natural organic classic modern vintage casual elegant cute funny professional premium "
    "universal wireless perfect ideal suitable made use used using fit fits fitted lasting lasts "
    "moisturizing drying sliding stretchy electric digital automatic".split()
)
WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True)
class TypeTerm:
    """How similar the product's kind is to the goal's."""

    query_match: bool  # both are listed under the same query
    category_match: bool  # at least two levels of the category in common
    title_score: float  # share of the target's title nouns that the title has, 0..1
    factor: float  # 1, 0.5, 0.1 or 0


@dataclass(frozen=True)
class Reward:
    """The terms of one purchase."""

    type: TypeTerm
    attributes: int  # number met
    options: int  # number met
    price: bool  # within the limit
    total: float  # 0..1


def processed(text: str) -> str:
    """Return a string in the form that is compared: without Latin-1 accents, other signs as blanks, lower case."""
    return utils.default_process(text.translate(LATIN_1_REST))


@lru_cache(maxsize=65536)
def alike(one: str, other: str) -> bool:
    """Return True if the token-set ratio of two strings, rounded to a whole number, is above 85."""
    return round(fuzz.token_set_ratio(processed(one), processed(other))) > SAME


def colour_of(text: str) -> str:
    """Return the first colour that the text contains, or the text itself."""
    return next((colour for colour in COLOURS if colour in text), text)


@lru_cache(maxsize=65536)
def title_nouns(title: str) -> tuple[str, ...]:
    """Return the words of a title that count as nouns, in lower case, with repetitions."""
    return tuple(word for word in WORD.findall(title.lower()) if word not in NOT_NOUNS)


def title_score(title: str, target: str) -> float:
    """Return the share of the target's nouns that are in the title, 0..1; 0.2 for a target without nouns."""
    wanted = title_nouns(target)
    return len(set(title_nouns(title)) & set(wanted)) / len(wanted) if wanted else 0.2


def type_term(product: Product, target: Product) -> TypeTerm:
    """Return the type term, whose factor multiplies all other terms."""
    levels, wanted = ({level.strip() for level in p.product_category.split("›")} for p in (product, target))
    query_match, category_match = product.query == target.query, len(levels & wanted) >= 2
    score = title_score(product.title, target.title)
    factor = 1.0 if query_match or category_match or score > 0.2 else 0.5
    if score < 0.1:
        factor = 0.0 if score == 0 else 0.1
    return TypeTerm(query_match, category_match, score, factor)


def attributes_met(product: Product, wanted: Iterable[str]) -> int:
    """Return the number of wanted attributes that the product has.

    It has those that are like a listed one, and those in its title, bullets or description.
    """
    texts = (product.title.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(alike(has, want) for has in product.attributes) or any(want in text for text in texts)
        for want in wanted
    )


def options_met(chosen: Mapping[str, str], wanted: Iterable[tuple[str, str]]) -> int:
    """Return the number of wanted options (name, value) that a chosen value is like.

    Chosen values are reduced to their colour if they contain one. A wanted value that is a colour is compared alone,
    any other one together with its option's name. If the name is unknown (goals written by people), a wanted value is
    reduced like the chosen ones.
    """
    have = [colour_of(value) for value in chosen.values()]
    met = 0
    for name, value in wanted:
        if name:
            want = value if value in COLOURS else f"{name} {value}"
        else:
            want = colour_of(value)
        met += any(alike(value, want) for value in have)
    return met


def reward(product: Product, chosen: Mapping[str, str], goal: Goal) -> Reward:
    """Return the reward of buying the product with the chosen options (name -> value) for a goal."""
    kind = type_term(product, goal.target)
    attributes, options = attributes_met(product, goal.attributes), options_met(chosen, goal.options)
    price = product.price <= goal.limit
    parts = len(goal.attributes) + len(goal.options) + 1
    total = (attributes + options + price) / parts * kind.factor
    return Reward(kind, attributes, options, price, total)
