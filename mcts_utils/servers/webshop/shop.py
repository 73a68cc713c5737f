"""The shop that all sessions share: products, goals and the search over them. It does not change after its creation."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache

from mcts_utils.servers.webshop import catalogue
from mcts_utils.servers.webshop.goals import split
from mcts_utils.servers.webshop.index import RESULTS, Index
from mcts_utils.servers.webshop.models import Goal, Product

AGENTGYM = "agentgym"  # the kind of a server whose goal indices are AgentGym's own
SEARCHES_CACHED = 4096  # the number of recent searches whose results are cached


class Shop:
    """Products in catalogue order, goals in index order."""

    def __init__(self, products: Sequence[Product], goals: Sequence[Goal], kind: str | None = None) -> None:
        """Index the products. `kind` names the set of goals; by default it is made from a digest of them."""
        self.products = tuple(products)
        self.goals = tuple(goals)
        self.by_asin = {product.asin.lower(): product for product in products}
        self.kind = kind or f"agent-r-webshop-{self._digest()[:8]}"
        self._index = Index(searchable(product) for product in products)
        self.found = lru_cache(SEARCHES_CACHED)(self._found)

    def split(self) -> dict[str, list[int]]:
        """Return our own train/test split of the goal indices."""
        return split(self.goals)

    def _found(self, keywords: tuple[str, ...]) -> tuple[Product, ...]:
        """Return the results of a search, best first.

        `<r>` gives a fixed sample; `<c> x` and `<q> x` list a category or a query.

        Raises:
            IndexError: `<c>` without a category.
        """
        if keywords[0] == "<r>":
            return tuple(random.Random(0).sample(self.products, min(RESULTS, len(self.products))))
        if keywords[0] == "<c>":
            return tuple(p for p in self.products if p.category == keywords[1].strip())
        if keywords[0] == "<q>":
            return tuple(p for p in self.products if p.query == " ".join(keywords[1:]).strip())
        return tuple(self.products[i] for i in self._index.search(" ".join(keywords)))

    def _digest(self) -> str:
        """Return a digest of what the goals mean and pay: it depends on the goals, their order and their products."""
        digest = hashlib.sha256()
        for product in self.products:
            digest.update(repr((product.asin, product.title, product.price, product.attributes)).encode())
        for goal in self.goals:
            digest.update(repr((goal.text, goal.attributes, goal.options, goal.target.asin)).encode())
        return digest.hexdigest()


def searchable(product: Product) -> str:
    """Return the indexed text of a product: title, description, first bullet and options."""
    options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in product.options.items())
    return " ".join([product.title, product.description, *product.bullets[:1], options])


@lru_cache(maxsize=1)
def bundled_shop() -> Shop:
    """Return the shop of the synthetic catalogue."""
    products = catalogue.products()
    return Shop(products, catalogue.goals(products))
