"""Write recipes.json: Minecraft 1.16's crafting recipes, with interchangeable variants regrouped into tags.

    pip install minecraft-data==3.20.0
    python -m mcts_utils.servers.textcraft.make_recipes

Source: the MIT-licensed package `minecraft-data`, version "1.16.5". That data lists one recipe per concrete
variant (a chest from eight kinds of planks is eight recipes); the game itself names the kinds with a tag. Variants
that differ in one ingredient are merged while the union of that ingredient is part of a tag of `tags`. Recipes that
only undo another one (block -> ingots) are left out, so that every item is raw or crafted from something simpler.
The output depends only on the package's data.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

VERSION = "1.16.5"
OUTPUT = Path(__file__).with_name("recipes.json")
WOODS = ("acacia", "birch", "dark_oak", "jungle", "oak", "spruce")
FUNGI = ("crimson", "warped")
COLOURS = (
    "black", "blue", "brown", "cyan", "gray", "green", "light_blue", "light_gray",
    "lime", "magenta", "orange", "pink", "purple", "red", "white", "yellow",
)  # fmt: skip


def log_tag(kind: str, trunk: str, bark: str) -> list[str]:
    """Return the members of one wood's log tag, the plain trunk first."""
    return [f"{kind}_{trunk}", f"{kind}_{bark}", f"stripped_{kind}_{trunk}", f"stripped_{kind}_{bark}"]


def tags() -> dict[str, list[str]]:
    """Return tag name -> members. The first raw member is the one to fetch if nothing else decides."""
    table = {f"{wood}_logs": log_tag(wood, "log", "wood") for wood in WOODS}
    table |= {f"{kind}_stems": log_tag(kind, "stem", "hyphae") for kind in FUNGI}
    table["logs"] = table["oak_logs"] + [m for tag, ms in table.items() if tag != "oak_logs" for m in ms]
    table["planks"] = ["oak_planks"] + [f"{kind}_planks" for kind in WOODS + FUNGI if kind != "oak"]
    table["wooden_slabs"] = ["oak_slab"] + [f"{kind}_slab" for kind in WOODS + FUNGI if kind != "oak"]
    table["wool"] = ["white_wool"] + [f"{colour}_wool" for colour in COLOURS if colour != "white"]
    table["coals"] = ["coal", "charcoal"]
    table["stones"] = ["cobblestone", "blackstone"]
    table["sands"] = ["sand", "red_sand"]
    table["soul_soils"] = ["soul_sand", "soul_soil"]
    return table


# Output, count made, {(alternatives, count needed)}.
Recipe = tuple[str, int, frozenset[tuple[frozenset[str], int]]]


def concrete_recipes(data) -> set[Recipe]:
    """Return every recipe of the package, shape dropped, as (output, count, {({ingredient}, count)})."""
    name = {item["id"]: item["name"] for item in data.items_list}
    found = set()
    for output, variants in data.recipes.items():
        for variant in variants:
            cells = variant.get("ingredients") or [c for row in variant["inShape"] for c in row]
            ids = [c["id"] if isinstance(c, dict) else c for c in cells]
            needed = Counter(name[i] for i in ids if i is not None and i != -1)
            inputs = frozenset((frozenset([item]), count) for item, count in needed.items())
            found.add((name[int(output)], variant["result"]["count"], inputs))
    return found


def merge_pair(a: Recipe, b: Recipe, unions: set[frozenset[str]]) -> Recipe | None:
    """Return the recipe that covers both if they differ in one ingredient whose union is part of a tag, or None."""
    if a[:2] != b[:2] or len(a[2]) != len(b[2]):
        return None
    only_a, only_b = a[2] - b[2], b[2] - a[2]
    if len(only_a) != 1 or len(only_b) != 1:
        return None
    (set_a, count_a), (set_b, count_b) = next(iter(only_a)), next(iter(only_b))
    union = set_a | set_b
    if count_a != count_b or not any(union <= whole for whole in unions):
        return None
    return a[0], a[1], (a[2] & b[2]) | {(union, count_a)}


def merge_variants(recipes: set[Recipe], unions: set[frozenset[str]]) -> set[Recipe]:
    """Merge recipes until no pair merges (order does not matter for whole products of tags)."""
    pool = sorted(recipes, key=repr_key)
    changed = True
    while changed:
        changed = False
        for i, first in enumerate(pool):
            for j in range(i + 1, len(pool)):
                merged = merge_pair(first, pool[j], unions)
                if merged:
                    pool = sorted([r for k, r in enumerate(pool) if k not in (i, j)] + [merged], key=repr_key)
                    changed = True
                    break
            if changed:
                break
    return set(pool)


def repr_key(recipe: Recipe) -> str:
    """Return a sort key: a total order that does not depend on hash seeds."""
    return json.dumps([recipe[0], recipe[1], sorted((sorted(s), n) for s, n in recipe[2])])


def is_undoing(recipe: Recipe, recipes: set[Recipe]) -> bool:
    """Return True for block -> items where items -> block exists, and for any one-ingredient recipe of an ingot."""
    output, made, inputs = recipe
    if len(inputs) != 1:
        return False
    ((alternatives, needed),) = inputs
    if output.endswith("_ingot"):
        return True
    packed = any(
        whole in alternatives and parts == frozenset([(frozenset([output]), count)])
        for whole, _, parts in recipes
        for count in range(2, 10)
    )
    return packed and needed == 1 and made > 1


def ingredients(recipe: Recipe, named: dict[frozenset[str], str]) -> list[list[Any]]:
    """Return [[item or #tag, count], ...] of a recipe.

    Raises:
        ValueError: interchangeable items are not the members of any tag.
    """
    listed: list[list[Any]] = []
    for alternatives, count in sorted(recipe[2], key=lambda x: (sorted(x[0]), x[1])):
        tag = named.get(alternatives)
        if tag is None and len(alternatives) > 1:
            raise ValueError(f"{recipe[0]}: no tag has exactly the members {sorted(alternatives)}")
        listed.append([f"#{tag}" if tag else next(iter(alternatives)), count])
    return listed


def build(data) -> dict[str, Any]:
    """Return the content of recipes.json, made from the package's data."""
    recipes = {r for r in concrete_recipes(data) if not any(r[0] in alternatives for alternatives, _ in r[2])}
    recipes = {r for r in recipes if not is_undoing(r, recipes)}
    table = tags()
    by_output: dict[str, set[Recipe]] = {}
    for recipe in recipes:
        by_output.setdefault(recipe[0], set()).add(recipe)
    named = {frozenset(members): tag for tag, members in table.items()}
    rows = [
        (recipe[0], recipe[1], ingredients(recipe, named))
        for output in sorted(by_output)
        for recipe in sorted(merge_variants(by_output[output], set(named)), key=repr_key)
    ]
    used = {name[1:] for _, _, inputs in rows for name, _ in inputs if name.startswith("#")}
    return {"version": VERSION, "tags": {t: m for t, m in table.items() if t in used}, "recipes": rows}


def file_text(body: dict[str, Any]) -> str:
    """Return the JSON text, one recipe a line."""
    lines = ",\n".join("  " + json.dumps(row) for row in body["recipes"])
    head = json.dumps({k: v for k, v in body.items() if k != "recipes"}, indent=1)[:-2]
    return head + ',\n "recipes": [\n' + lines + "\n ]\n}\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write the file and print one line about it."""
    description = (__doc__ or "").partition("\n")[0]
    argparse.ArgumentParser(
        prog="python -m mcts_utils.servers.textcraft.make_recipes", description=description
    ).parse_args(argv)
    try:
        import minecraft_data
    except ImportError:
        sys.exit("make_recipes needs the package: pip install minecraft-data==3.20.0")
    body = build(minecraft_data(VERSION))
    OUTPUT.write_text(file_text(body), encoding="utf-8")
    print(
        f"{OUTPUT}: {len(body['recipes'])} recipes, {len(body['tags'])} tags: {', '.join(sorted(body['tags']))}"
    )


if __name__ == "__main__":
    main()
