"""The synthetic catalogue: the same 1,200 products and their goals at every start, from a seed. Pure.

Products come in families of near-duplicates: one brand and kind, and variants that differ in an attribute, in the price
or in the options left. A shopper who takes the first hit, or forgets an option, earns a part of the reward. Some
attributes stand in the title, the others only on the Description or Features page.
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
GOALS_PER_PRODUCT = 2  # attempts; equal instructions are asked once
DEAR = (1.8, 2.6)  # times the family's price: above every limit of its siblings' goals, mostly
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
    """All products, near-duplicates beside each other, in a fixed order."""
    rng = random.Random(seed)
    taken: set[str] = set()
    made = []
    for department in DEPARTMENTS:
        for kind in department.kinds:
            for number in range(FAMILIES):
                made += _family(department, kind, number, rng, taken)
    return made


def goals(stock: Sequence[Product], seed: int = SEED) -> list[Goal]:
    """Goals for the products, no two with one content, shuffled."""
    rng = random.Random(f"goals {seed}")
    found: dict[str, Goal] = {}
    for product in stock:
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
    """`slim fit men's shirts with long sleeve for daily wear`."""
    before, with_, for_ = (", ".join(part) for part in department.by_role(attributes))
    text = f"{before} {noun}" if before else noun
    text += f" with {with_}" if with_ else ""
    return text + (f" for {for_}" if for_ else "")


def capitals(text: str) -> str:
    """`men's shirt with long sleeve` -> `Men's Shirt with Long Sleeve`."""
    small = ("with", "for", "and")
    return " ".join(word if word in small else word[0].upper() + word[1:] for word in text.split())


def _family(
    department: Department, kind: Kind, number: int, rng: random.Random, taken: set[str]
) -> list[Product]:
    """A base product and its near-duplicates."""
    brand = department.brands[(number + department.kinds.index(kind)) % len(department.brands)]
    base = _attributes(department, rng)
    options = {
        name: tuple(sorted(rng.sample(v, rng.randint(3, len(v))), key=v.index))
        for name, v in department.options
    }
    price = rng.randint(*kind.prices) + rng.choice((0.49, 0.95, 0.99))
    variants = []
    for place in range(VARIANTS):
        attributes, left, cost = base, options, price + rng.choice((-1, 0, 1))
        if place in (1, 4):
            attributes = _swapped(base, department, rng)
        elif place == 2:
            cost = price * rng.uniform(*DEAR)
        elif place == 3:
            left = _reduced(options, rng)
        variants.append(_product(department, kind, brand, attributes, left, cost, rng, taken))
    return variants


def _attributes(department: Department, rng: random.Random) -> tuple[str, ...]:
    return (
        *rng.sample(department.before, 2),
        *rng.sample(department.with_, 2),
        rng.choice(department.for_),
    )


def _swapped(base: Attributes, department: Department, rng: random.Random) -> tuple[str, ...]:
    """The same but for one attribute, which becomes another one of its role."""
    place = rng.randrange(len(base))
    pool = next(p for p in (department.before, department.with_, department.for_) if base[place] in p)
    other = rng.choice([attribute for attribute in pool if attribute not in base])
    return (*base[:place], other, *base[place + 1 :])


def _reduced(options: Mapping[str, tuple[str, ...]], rng: random.Random) -> dict[str, tuple[str, ...]]:
    """One value of every option is sold out."""
    left = {}
    for name, values in options.items():
        gone = rng.choice(values)
        left[name] = tuple(value for value in values if value != gone)
    return left


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
    role = next(place for place, part in enumerate(department.by_role([attribute])) if part)
    text = rng.choice(BULLETS[role]).format(attribute)
    return text[0].upper() + text[1:]


def _price(cost: float, rng: random.Random) -> tuple[float, str]:
    """The price and its tag: one product in six shows a range that its price lies in."""
    price = round(cost, 2)
    if rng.random() < 1 / 6:
        return price, f"${round(price * 0.9, 2)} to ${round(price * 1.1, 2)}"
    return price, f"${price}"


def _asin(rng: random.Random, taken: set[str]) -> str:
    """A new ten-character id."""
    while True:
        asin = "B0" + "".join(rng.choices(ASIN_SIGNS, k=8))
        if asin not in taken:
            taken.add(asin)
            return asin
