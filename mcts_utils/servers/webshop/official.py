"""Reading WebShop's own data files, where a person has them, by the rules of the original's loader.

A folder holds `items_shuffle.json` (products), `items_ins_v2.json` (attributes and synthetic instructions) and, for
human goals, `items_human_ins.json`; `items_shuffle_1000.json` and `items_ins_v2_1000.json` are taken where the long
files are not there. AgentGym's server plays the synthetic goals of the first 1,000 products, 6,910 of them: the default
here, and then the indices are AgentGym's own. Prices of products that have a range are drawn from the product's id, so
that they are the same at every start; the original draws them anew for every environment.
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
UNPRICED = 100.0  # dollars
NO_ATTRIBUTES = ("DUMMY_ATTR",)
CHUNK = 1 << 20  # characters read at a time
BETWEEN = re.compile(r"[\s,]*")  # two elements


class DataError(ValueError):
    """A data file is missing or is not what it should be; the message is one line that names it."""


def load_shop(folder: Path, human: bool = False, limit: int = AGENTGYM_PRODUCTS) -> Shop:
    """The shop of a folder's files.

    Args:
        folder: where the files are.
        human: play the instructions that people wrote instead of the synthetic ones.
        limit: how many entries of the product file are read; 0 reads all.

    Raises:
        DataError: a file is missing or broken, or it holds no goal.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    attributes = read_table(found(folder, ATTRIBUTES))
    written = read_table(found(folder, HUMAN)) if human else {}
    path = found(folder, PRODUCTS)
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
    ours = human or limit != AGENTGYM_PRODUCTS or len(goals) != AGENTGYM_GOALS
    return Shop(list(products.values()), goals, None if ours else AGENTGYM)


def found(folder: Path, names: tuple[str, ...]) -> Path:
    """The first of the files that is there."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder / names[0]}: no such file")


def describe(error: Exception) -> str:
    """One line; a KeyError says what is missing."""
    return f"no field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"


def read_table(path: Path) -> dict[str, Any]:
    """A JSON object, by product id."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not isinstance(table, dict):
        raise DataError(f"{path}: not a JSON object, but a {type(table).__name__}")
    return table


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """The elements of a JSON array, one at a time: the product file has gigabytes, and its start may be enough."""
    decoder, row = json.JSONDecoder(), 0
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(CHUNK)
            place = skip(text, 0)
            if not text.startswith("[", place):
                raise DataError(f"{path}: not a JSON array")
            place += 1
            while True:
                place = skip(text, place)
                try:
                    item, place = decoder.raw_decode(text, place)
                except json.JSONDecodeError as error:
                    if text.startswith("]", place):
                        return
                    chunk = file.read(CHUNK)
                    if not chunk:
                        raise DataError(f"{path}: element {row}: {error}") from error
                    text, place = text[place:] + chunk, 0
                    continue
                yield item
                row += 1
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def skip(text: str, place: int) -> int:
    """Where the next element starts."""
    found = BETWEEN.match(text, place)
    assert found is not None  # it matches nothing at all
    return found.end()


def read_product(item: dict[str, Any], known: dict[str, Any]) -> Product:
    """One element of the product file with its entry of the attribute file."""
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
    """Price in dollars and tag of a text such as "$58.99" or "$58.99 - $66.99"."""
    prices = [float(re.sub(r"[^\d.]", "", part)) for part in (pricing or "").split("$")[1:]]
    if not prices:
        return UNPRICED, f"${UNPRICED}"
    if len(prices) == 1:
        return prices[0], f"${prices[0]}"
    return random.Random(asin).uniform(*prices[:2]), f"${prices[0]} to ${prices[1]}"


def read_options(customization: dict[str, Any] | None) -> dict[str, tuple[str, ...]]:
    """Option name -> values, in lower case."""
    return {
        name.lower(): tuple(entry["value"].strip().replace("/", " | ").lower() for entry in listed)
        for name, listed in (customization or {}).items()
        if listed is not None
    }


def read_instruction(product: Product, entry: dict[str, Any]) -> Instruction | None:
    """An entry with an instruction: of the attribute file, or one of the human file."""
    if entry.get("instruction") is None:
        return None
    options = entry.get("instruction_options") or []
    pairs = options.items() if isinstance(options, dict) else (("", value) for value in options)
    return Instruction(product, entry["instruction"], tuple(entry["instruction_attributes"]), tuple(pairs))
