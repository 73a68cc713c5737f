"""The synthetic catalogue: 1,200 products and their goals, made from a seed, so the same at every start. Pure.

Products come in families of near-duplicates: one brand and kind, with variants that differ in an attribute, in the
price or in the options on sale. An agent that takes the first result, or forgets an option, earns part of the reward.
Some attributes are in the title, the others only on the Description or Features page.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from mcts_utils.servers.webshop.catalogue_tables import DEPARTMENTS, Department, Kind
from mcts_utils.servers.webshop.goals import limit_and_clause, shuffled, with_options
from mcts_utils.servers.webshop.models import Goal, Product

SEED = 2025
FAMILIES = 6  # per kind
VARIANTS = 5  # per family
GOALS_PER_PRODUCT = 2  # draws; equal instructions make one goal
EXPENSIVE = (1.8, 2.6)  # times the family's price: mostly above the price limits of the family's other goals
ASIN_SIGNS = "0123456789BCDFGHJKLMNPQRSTVWXYZ"
BULLETS = (
    ("{} by design, and it stays that way.", "{}, as our customers confirm.", "Always {}."),
    ("Comes with {}.", "The {} makes the difference.", "We chose {} for it."),
    ("Made for {}.", "A good companion for {}.", "People buy it for {}."),
)  # by role of the attribute
DESCRIPTIONS = (
    "{brand} takes its time with every {noun}. {listed}",
    "A {noun} from {brand} that people come back to. {listed}",
    "This {noun} was drawn in our own studio. {listed}",
)
Attributes = Sequence[str]


def products(seed: int = SEED) -> list[Product]:
    """Return all products in a fixed order, near-duplicates beside each other."""
    rng = random.Random(seed)
    taken: set[str] = set()
    made = []
    for department in DEPARTMENTS:
        for kind in department.kinds:
            for number in range(FAMILIES):
                made += _family(department, kind, number, rng, taken)
    return made


def goals(listed: Sequence[Product], seed: int = SEED) -> list[Goal]:
    """Return goals for the products, no two with the same content, shuffled."""
    rng = random.Random(f"goals {seed}")
    found: dict[str, Goal] = {}
    for product in listed:
        for _ in range(GOALS_PER_PRODUCT):
            goal = _goal(product, rng)
            found.setdefault(goal.content, goal)
    return shuffled(list(found.values()))


def _goal(product: Product, rng: random.Random) -> Goal:
    department = next(d for d in DEPARTMENTS if d.category == product.category)
    wanted = tuple(rng.sample(product.attributes, rng.choice((2, 2, 3))))
    names = [name for name in product.options if rng.random() < 0.85]
    options = tuple((name, rng.choice(product.options[name])) for name in names)
    limit, clause = limit_and_clause(product.price, rng)
    content = with_options(f"Find me {named(product.query, wanted, department)}", options)
    return Goal(content, clause, limit, wanted, options, product)


def named(noun: str, attributes: Attributes, department: Department) -> str:
    """Return a noun with its attributes, such as `slim fit men's shirts with long sleeve for daily wear`."""
    before, with_, for_ = (", ".join(part) for part in department.by_role(attributes))
    text = f"{before} {noun}" if before else noun
    text += f" with {with_}" if with_ else ""
    return text + (f" for {for_}" if for_ else "")


def capitals(text: str) -> str:
    """Return a text in title case: `men's shirt with long sleeve` -> `Men's Shirt with Long Sleeve`."""
    small = ("with", "for", "and")
    return " ".join(word if word in small else word[0].upper() + word[1:] for word in text.split())


def _family(
    department: Department, kind: Kind, number: int, rng: random.Random, taken: set[str]
) -> list[Product]:
    """Return a base product and its near-duplicates."""
    brand = department.brands[(number + department.kinds.index(kind)) % len(department.brands)]
    base = _attributes(department, rng)
    options = {
        name: tuple(sorted(rng.sample(v, rng.randint(3, len(v))), key=v.index))
        for name, v in department.options.items()
    }
    price = rng.randint(kind.low, kind.high) + rng.choice((0.49, 0.95, 0.99))
    variants = []
    for variant in range(VARIANTS):
        attributes, offered, cost = base, options, price + rng.choice((-1, 0, 1))
        if variant in (1, 4):
            attributes = _swapped(base, department, rng)
        elif variant == 2:
            cost = price * rng.uniform(*EXPENSIVE)
        elif variant == 3:
            offered = _reduced(options, rng)
        variants.append(_product(department, kind, brand, attributes, offered, cost, rng, taken))
    return variants


def _attributes(department: Department, rng: random.Random) -> tuple[str, ...]:
    return (*rng.sample(department.before, 2), *rng.sample(department.with_, 2), rng.choice(department.for_))


def _swapped(base: Attributes, department: Department, rng: random.Random) -> tuple[str, ...]:
    """Return the attributes with one of them replaced by another one of its role."""
    position = rng.randrange(len(base))
    pool = next(p for p in (department.before, department.with_, department.for_) if base[position] in p)
    other = rng.choice([attribute for attribute in pool if attribute not in base])
    return (*base[:position], other, *base[position + 1 :])


def _reduced(options: Mapping[str, tuple[str, ...]], rng: random.Random) -> dict[str, tuple[str, ...]]:
    """Return the options with one value of each sold out."""
    remaining = {}
    for name, values in options.items():
        gone = rng.choice(values)
        remaining[name] = tuple(value for value in values if value != gone)
    return remaining


def _product(
    department: Department,
    kind: Kind,
    brand: str,
    attributes: Attributes,
    options: Mapping[str, tuple[str, ...]],
    cost: float,
    rng: random.Random,
    taken: set[str],
) -> Product:
    shown = rng.sample(attributes, len(attributes))  # two in the title, the others as bullets
    title = f"{brand} {capitals(named(kind.noun, shown[:2], department))}, Model {_asin(rng, taken)[-4:]}"
    listed = f"Known as {named(kind.noun.lower(), shown[1:3], department)}."
    description = rng.choice(DESCRIPTIONS).format(brand=brand, noun=kind.noun.lower(), listed=listed)
    bullets = tuple(_bullet(attribute, department, rng) for attribute in shown[2:])
    price, tag = _price(cost, rng)
    return Product(
        asin=_asin(rng, taken),
        title=title,
        description=description,
        bullets=bullets,
        options=options,
        attributes=tuple(attributes),
        price=price,
        price_tag=tag,
        query=kind.query,
        category=department.category,
        product_category=f"{department.root} › {kind.branch} › {capitals(kind.query)}",
    )


def _bullet(attribute: str, department: Department, rng: random.Random) -> str:
    role = next(i for i, part in enumerate(department.by_role([attribute])) if part)
    text = rng.choice(BULLETS[role]).format(attribute)
    return text[0].upper() + text[1:]


def _price(cost: float, rng: random.Random) -> tuple[float, str]:
    """Return the price in dollars and its tag; the tag of one product in six is a range that holds the price."""
    price = round(cost, 2)
    if rng.random() < 1 / 6:
        return price, f"${round(price * 0.9, 2)} to ${round(price * 1.1, 2)}"
    return price, f"${price}"


def _asin(rng: random.Random, taken: set[str]) -> str:
    """Return a new ten-character id and add it to `taken`."""
    while True:
        asin = "B0" + "".join(rng.choices(ASIN_SIGNS, k=8))
        if asin not in taken:
            taken.add(asin)
            return asin
