"""A loader of WebShop's own data files, by the rules of the original's loader. The files are not part of this project.

A folder holds `items_shuffle.json` (products), `items_ins_v2.json` (attributes and synthetic instructions) and, for
human goals, `items_human_ins.json`; `items_shuffle_1000.json` and `items_ins_v2_1000.json` are read if the long files
are missing. AgentGym's server has the 6,910 synthetic goals of the first 1,000 products, the default here; the indices
are then AgentGym's own. A price within a range is drawn from the product's id, so it is the same at every start; the
original draws it again for every environment.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from mcts_utils.servers.webshop.goals import Instruction, human_goals, synthetic_goals
from mcts_utils.servers.webshop.models import Product
from mcts_utils.servers.webshop.shop import AGENTGYM, Shop

PRODUCTS = ("items_shuffle.json", "items_shuffle_1000.json")
ATTRIBUTES = ("items_ins_v2.json", "items_ins_v2_1000.json")
HUMAN = ("items_human_ins.json",)
AGENTGYM_PRODUCTS, AGENTGYM_GOALS = 1000, 6910
ASIN_LENGTH = 10  # longer ids are skipped
UNPRICED = 100.0  # dollars, of a product without a price
NO_ATTRIBUTES = ("DUMMY_ATTR",)
CHUNK = 1 << 20  # characters read at a time
SEPARATOR = re.compile(r"[\s,]*")  # between two elements


class DataError(ValueError):
    """A data file is missing or broken; the message is one line that names it."""


def load_shop(folder: Path, human: bool = False, limit: int = AGENTGYM_PRODUCTS) -> Shop:
    """Return the shop of a folder's files.

    Args:
        folder: where the files are.
        human: use the goals that people wrote instead of the synthetic ones.
        limit: the number of entries of the product file to read; 0 reads all.

    Raises:
        DataError: a file is missing or broken, or there is no goal.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    attributes = read_table(first_existing(folder, ATTRIBUTES))
    written = read_table(first_existing(folder, HUMAN)) if human else {}
    path = first_existing(folder, PRODUCTS)
    products: dict[str, Product] = {}
    instructions: list[Instruction] = []
    for row, item in enumerate(islice(entries(path), limit or None)):
        try:
            asin = item["asin"]
            if asin == "nan" or len(asin) > ASIN_LENGTH or asin in products:
                continue
            known = attributes.get(asin, {})
            product = products[asin] = read_product(item, known)
            listed = written.get(asin, []) if human else [known]
            instructions += [i for entry in listed if (i := read_instruction(product, entry)) is not None]
        except (AttributeError, ArithmeticError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: product {row}: {describe(error)}") from error
    goals = human_goals(instructions) if human else synthetic_goals(instructions)
    if not goals:
        raise DataError(
            f"{path}: no goal for its {len(products)} products in {'/'.join(HUMAN if human else ATTRIBUTES)}"
        )
    agentgym = not human and limit == AGENTGYM_PRODUCTS and len(goals) == AGENTGYM_GOALS
    return Shop(list(products.values()), goals, AGENTGYM if agentgym else None)


def first_existing(folder: Path, names: tuple[str, ...]) -> Path:
    """Return the first of the files that exists; raise DataError if none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder / names[0]}: no such file")


def describe(error: Exception) -> str:
    """Return a one-line description of an error; a KeyError names the missing field."""
    return f"no field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def read_table(path: Path) -> dict[str, Any]:
    """Read a JSON object, keyed by product id; raise DataError if the file cannot be read, or holds something else."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: not a JSON object, but a {type(table).__name__}")
    return table


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the elements of a JSON array one by one; the product file has gigabytes, and its start may be enough.

    Raises:
        DataError: the file cannot be read, or holds something else.
    """
    decoder, row = json.JSONDecoder(), 0
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CHUNK)
            position = skip_separator(text, 0)
            if not text.startswith("[", position):
                raise DataError(f"{path}: not a JSON array")
            position += 1
            while True:
                position = skip_separator(text, position)
                try:
                    item, position = decoder.raw_decode(text, position)
                except json.JSONDecodeError as error:
                    if text.startswith("]", position):
                        return
                    chunk = file.read(CHUNK)
                    if not chunk:
                        raise DataError(f"{path}: element {row}: {error}") from error
                    text, position = text[position:] + chunk, 0
                    continue
                yield item
                row += 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def skip_separator(text: str, position: int) -> int:
    """Return the position at which the next element starts."""
    match = SEPARATOR.match(text, position)
    assert match is not None  # it also matches the empty text
    return match.end()


def read_product(item: dict[str, Any], known: dict[str, Any]) -> Product:
    """Return the product of an element of the product file and its entry of the attribute file."""
    bullets = item["small_description"]
    price, tag = read_price(item["asin"], item.get("pricing"))
    return Product(
        asin=item["asin"],
        title=item["name"] or "",
        description=item["full_description"] or "",
        bullets=tuple(bullets) if isinstance(bullets, list) else (bullets or "",),
        options=read_options(item["customization_options"]),
        attributes=tuple(known.get("attributes", NO_ATTRIBUTES)),
        price=price,
        price_tag=tag,
        query=item["query"].lower().strip(),
        category=item["category"],
        product_category=item["product_category"],
    )


def read_price(asin: str, pricing: str | None) -> tuple[float, str]:
    """Return the price in dollars and the tag of a text such as "$58.99" or "$58.99 - $66.99"."""
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not prices:
        return UNPRICED, f"${UNPRICED}"
    if len(prices) == 1:
        return prices[0], f"${prices[0]}"
    return random.Random(asin).uniform(*prices[:2]), f"${prices[0]} to ${prices[1]}"


def read_options(customization: dict[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """Return option name -> values, in lower case."""
    return {
        name.lower(): tuple(entry["value"].strip().replace("/", " | ").lower() for entry in listed)
        for name, listed in (customization or {}).items()
        if listed is not None
    }


def read_instruction(product: Product, entry: dict[str, Any]) -> Instruction | None:
    """Return the instruction of an entry of the attribute file or of the human file; None if it has none."""
    if entry.get("instruction") is None:
        return None
    options = entry.get("instruction_options") or []
    pairs = options.items() if isinstance(options, dict) else (("", value) for value in options)
    return Instruction(product, entry["instruction"], tuple(entry["instruction_attributes"]), tuple(pairs))
