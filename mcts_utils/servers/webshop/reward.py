"""What a purchase pays: the terms of WebShop's reward (Yao et al. 2022, section 3), one function each. Pure.

    reward = type * (attributes met + options met + price met) / (|attributes| + |options| + 1)

The thresholds are the original's. One rule differs: the original takes a title's nouns from a spaCy model; here they
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
# The colour of an option is the first of these, by the alphabet, that its text contains ("navy blue" is blue).
COLOURS = tuple(
    "alabaster apricot aqua ash asphalt azure banana beige black blue blush bordeaux bronze brown burgundy "
    "camel camo caramel champagne charcoal cheetah chestnut chocolate christmas coffee cognac copper coral "
    "cranberry cream crystal dark denim eggplant elephant espresso fuchsia gold granite grape graphite "
    "grass gray green grey heather indigo ivory ivy khaki lavender lemon leopard light lilac lime magenta "
    "maroon mauve merlot midnight mint mocha multicolor mushroom mustard natural navy nude olive orange "
    "peach pewter pink plum purple rainbow red rose royal rust sand sapphire seashell silver skull slate "
    "steel stone stonewash sunflower tan taupe teal tiger turquoise violet walnut wheat white wine yellow".split()
)
# Words of titles that are rarely nouns: what a tagger would drop. Colours and brands stay, as they do there.
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
    """How near the product's kind is to the goal's."""

    query_match: bool  # listed under the same query
    category_match: bool  # at least two levels of the category in common
    title_score: float  # share of the target's title nouns that the title has, 0..1
    factor: float  # 1, 0.5, 0.1 or 0


@dataclass(frozen=True)
class Reward:
    """The terms of one purchase."""

    type: TypeTerm
    attributes: int  # met
    options: int  # met
    price: bool  # within the limit
    total: float  # 0..1


def processed(text: str) -> str:
    """A string as it is compared: Latin-1 accents dropped, other signs as blanks, lower case."""
    return utils.default_process(text.translate(LATIN_1_REST))


@lru_cache(maxsize=65536)
def alike(one: str, other: str) -> bool:
    """True if the token-set ratio of two strings, rounded to a whole number, is above 85."""
    return round(fuzz.token_set_ratio(processed(one), processed(other))) > SAME


def colour_of(text: str) -> str:
    """The first colour that the text contains, or the text itself."""
    return next((colour for colour in COLOURS if colour in text), text)


@lru_cache(maxsize=65536)
def title_nouns(title: str) -> tuple[str, ...]:
    """The words of a title that count as nouns, in lower case, repeated ones repeated."""
    return tuple(word for word in WORD.findall(title.lower()) if word not in NOT_NOUNS)


def title_score(title: str, target: str) -> float:
    """Share of the target's nouns found in the title; 0.2 for a target without nouns."""
    wanted = title_nouns(target)
    return len(set(title_nouns(title)) & set(wanted)) / len(wanted) if wanted else 0.2


def type_term(product: Product, target: Product) -> TypeTerm:
    """The factor that the kind of product puts on everything else."""
    levels, wanted = ({level.strip() for level in p.product_category.split("›")} for p in (product, target))
    query_match, category_match = product.query == target.query, len(levels & wanted) >= 2
    score = title_score(product.title, target.title)
    factor = 1.0 if query_match or category_match or score > 0.2 else 0.5
    if score < 0.1:
        factor = 0.0 if score == 0 else 0.1
    return TypeTerm(query_match, category_match, score, factor)


def attributes_met(product: Product, wanted: Iterable[str]) -> int:
    """Attributes that the product lists alike, or that its title, bullets or description contain."""
    texts = (product.title.lower(), " ".join(product.bullets).lower(), product.description.lower())
    return sum(
        any(alike(has, want) for has in product.attributes) or any(want in text for text in texts)
        for want in wanted
    )


def options_met(chosen: Mapping[str, str], wanted: Iterable[tuple[str, str]]) -> int:
    """Wanted options that some chosen value is alike to, both by colour where they have one.

    A wanted value counts as a colour only if it is one; it is compared together with its option's name. Where the name
    is unknown (goals written by people), it is treated as the chosen ones are.
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
    """What buying the product with the chosen options (name -> value) pays for this goal."""
    kind = type_term(product, goal.target)
    attributes, options = attributes_met(product, goal.attributes), options_met(chosen, goal.options)
    price = product.price <= goal.limit
    parts = len(goal.attributes) + len(goal.options) + 1
    total = (attributes + options + price) / parts * kind.factor
    return Reward(kind, attributes, options, price, total)
