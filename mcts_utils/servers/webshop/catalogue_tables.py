"""Tables of the synthetic catalogue, in catalogue.json: kinds of product, brands, attributes, options.

Brands are invented; the other words are plain English. An attribute has a role, its position in an instruction: before
the kind ("long lasting"), after "with" ("argan oil") or after "for" ("dry hair").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec


class Kind(msgspec.Struct, frozen=True, array_like=True):
    """One kind of product."""

    query: str  # plural, used in instructions
    noun: str  # used in titles
    branch: str  # second level of the category tree, shared by some kinds
    low: int  # price in dollars
    high: int


class Department(msgspec.Struct, frozen=True):
    """One category, and the values that its products may have."""

    category: str
    root: str  # first level of the category tree
    before: tuple[str, ...]  # attributes, by role
    with_: tuple[str, ...]
    for_: tuple[str, ...]
    options: dict[str, tuple[str, ...]]  # name -> values that a product may have
    brands: tuple[str, ...]
    kinds: tuple[Kind, ...]

    def by_role(self, attributes: Iterable[str]) -> tuple[tuple[str, ...], ...]:
        """Return the attributes in three parts: before the kind, after "with", after "for"."""
        listed = tuple(attributes)
        pools = (self.before, self.with_, self.for_)
        return tuple(tuple(a for a in listed if a in pool) for pool in pools)


DATA = Path(__file__).with_name("catalogue.json")
DEPARTMENTS = msgspec.json.decode(DATA.read_bytes(), type=tuple[Department, ...])
