"""The TextCraft world: recipes, goals and the inventory of one session. No HTTP.

Rules and texts follow AgentGym's TextCraft (TextCraft is from Prasad et al. 2024, "ADaPT"): three actions,
matched by prefix, case-sensitive, single spaces:

    get 2 oak log                          raw items only
    craft 4 oak planks using 1 oak log     one recipe once; a tag such as "planks" is met by any one member
    inventory

Reward 1 and done on crafting or getting the goal item.
"""

import hashlib
import json
import random
import re
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

NAMESPACE = "minecraft:"
MAX_GOAL_DEPTH = 4  # crafting levels below the goal, as in AgentGym's 544 goals
TAG_MEMBERS_SHOWN = 2  # craftable members of a tag whose recipes are listed, at most
DISTRACTORS = 7  # listed recipes that the goal does not need, at most
TEST_SHARE = 0.36  # of the goals of each depth
MAX_ACTION = 10_000  # characters; a longer line is no command
COUNTED = re.compile(r"([0-9]+) (.*)")  # "4 oak planks"


def text(name: str) -> str:
    """Return a name as observations show it: `dark_oak_planks` -> `dark oak planks`."""
    return name.replace("_", " ")


def order_key(name: str) -> str:
    """Return a sort key (sha256) that orders names arbitrarily, the same way on every machine."""
    return hashlib.sha256(name.encode()).hexdigest()


@dataclass(frozen=True)
class Recipe:
    """How to craft an item."""

    output: str  # item
    count: int  # of the output, made at a time
    inputs: tuple[tuple[str, int], ...]  # (item or #tag, count)

    def line(self) -> str:
        """Return the crafting command that lists the recipe; a tag stands for its members."""
        needs = ", ".join(f"{n} {text(name.lstrip('#'))}" for name, n in self.inputs)
        return f"craft {self.count} {text(self.output)} using {needs}"


@dataclass(frozen=True)
class World:
    """All recipes and goals. Immutable; shared by all sessions."""

    recipes: dict[str, tuple[Recipe, ...]]  # by output item
    tags: dict[str, tuple[str, ...]]  # name -> member items
    depth: dict[str, int]  # item -> crafting levels, 0 = raw
    goals: tuple[str, ...]  # items, in the order of the server's indices
    items: frozenset[str]

    def members(self, name: str) -> tuple[str, ...]:
        """Return the items that satisfy an ingredient: the tag's members, or the item itself."""
        return self.tags[name[1:]] if name.startswith("#") else (name,)

    def is_raw(self, item: str) -> bool:
        """Return True if `get` provides the item: a known item that no recipe makes."""
        return item in self.items and item not in self.recipes

    def digest(self) -> str:
        """Return 8 hex digits that identify the goals and their order, so what an index means."""
        return hashlib.sha256("\n".join(self.goals).encode()).hexdigest()[:8]

    def split(self) -> dict[str, list[int]]:
        """Return the goal indices of the fixed train/test split; no goal is in both parts, every depth is in both."""
        test: set[str] = set()
        for level in range(1, MAX_GOAL_DEPTH + 1):
            same = sorted((g for g in self.goals if self.depth[g] == level), key=order_key)
            test.update(same[: round(TEST_SHARE * len(same))])
        halves: dict[str, list[int]] = {"train": [], "test": []}
        for index, goal in enumerate(self.goals):
            halves["test" if goal in test else "train"].append(index)
        return halves

    def commands(self, goal: str, rng: random.Random | None = None) -> list[str]:
        """Return the crafting commands shown with a goal: all it can need, and distractors that share ingredients.

        The default order and choice come from the goal's name alone, so a goal always shows the same commands;
        `rng` draws another presentation of the same goal (for training data).
        """
        rng = rng or random.Random(order_key(goal))
        needed = self._needed(goal, rng)
        shown = [r for name in needed for r in self.recipes[name]]
        related = {name for r in shown for name, _ in r.inputs}
        related.add(goal)
        pool = [r for r, names in self._by_output if r.output not in needed and not related.isdisjoint(names)]
        shown += rng.sample(pool, min(DISTRACTORS, len(pool)))
        rng.shuffle(shown)
        return [r.line() for r in shown]

    @cached_property
    def _by_output(self) -> list[tuple[Recipe, list[str]]]:
        """All recipes by the names of their outputs, each with the names of its ingredients."""
        return [
            (r, [name for name, _ in r.inputs])
            for output in sorted(self.recipes)
            for r in self.recipes[output]
        ]

    def _needed(self, goal: str, rng: random.Random) -> list[str]:
        """Return the items whose recipes a plan for the goal can use."""
        needed: list[str] = []
        queue = [goal]
        shown_members: dict[str, list[str]] = {}  # one choice of members per tag
        while queue:
            item = queue.pop(0)
            if item in needed or item not in self.recipes:
                continue
            needed.append(item)
            for recipe in self.recipes[item]:
                for name, _ in recipe.inputs:
                    if name not in shown_members:
                        shown_members[name] = self._craftable(name, rng)
                    queue += shown_members[name]
        return needed

    def _craftable(self, name: str, rng: random.Random) -> list[str]:
        """Return the members of an ingredient whose recipes are worth listing: none if a member is raw."""
        if any(self.is_raw(member) for member in self.members(name)):
            return []
        members = [m for m in self.members(name) if m in self.depth]
        easiest = [m for m in members if self.depth[m] == min(self.depth[x] for x in members)]
        return easiest if len(easiest) <= TAG_MEMBERS_SHOWN else rng.sample(easiest, TAG_MEMBERS_SHOWN)

    def opening(self, goal: str, commands: list[str] | None = None) -> str:
        """Return the observation of a reset: the commands (by default those of `commands(goal)`) and the goal."""
        lines = "\n".join(commands if commands is not None else self.commands(goal))
        return f"Crafting commands:\n{lines}\n\nGoal: craft {text(goal)}."


def crafting_depths(
    recipes: dict[str, tuple[Recipe, ...]], tags: dict[str, tuple[str, ...]], items: set[str]
) -> dict[str, int]:
    """Return the least number of crafting levels of each item that can be made at all (raw items: 0)."""
    depth = {item: 0 for item in items if item not in recipes}
    while True:
        found: dict[str, int] = {}
        for output, ways in recipes.items():
            if output in depth:
                continue
            for recipe in ways:
                best = []
                for name, _ in recipe.inputs:
                    members = tags[name[1:]] if name.startswith("#") else (name,)
                    best.append(min((depth[m] for m in members if m in depth), default=None))
                if None not in best:
                    found[output] = min(found.get(output, 99), 1 + max(b for b in best if b is not None))
        if not found:
            return depth
        lowest = min(found.values())
        depth.update({item: level for item, level in found.items() if level == lowest})


@lru_cache(maxsize=1)
def load_world() -> World:
    """Return the world of recipes.json. Items that cannot be made from raw ones have no depth and are no goals."""
    data = json.loads(Path(__file__).with_name("recipes.json").read_text(encoding="utf-8"))
    tags = {name: tuple(members) for name, members in data["tags"].items()}
    ways: dict[str, list[Recipe]] = {}
    items = {m for members in tags.values() for m in members}
    for output, count, inputs in data["recipes"]:
        ways.setdefault(output, []).append(Recipe(output, count, tuple((name, n) for name, n in inputs)))
        items.add(output)
        items.update(name for name, _ in inputs if not name.startswith("#"))
    recipes = {output: tuple(found) for output, found in ways.items()}
    depth = crafting_depths(recipes, tags, items)
    goals = sorted(
        (g for g in recipes if g in depth and depth[g] <= MAX_GOAL_DEPTH), key=lambda g: (depth[g], g)
    )
    return World(recipes, tags, depth, tuple(goals), frozenset(items))


@dataclass
class Session:
    """One episode: a goal and an inventory. Not thread-safe."""

    world: World
    goal: str  # item
    inventory: dict[str, int] = field(default_factory=dict)  # item -> count

    def step(self, action: str) -> tuple[str, int, bool]:
        """Execute one action; return the observation, the reward (0 or 1) and done."""
        if len(action.partition("\n")[0]) > MAX_ACTION:
            return f"Could not execute {action}", 0, False
        if match := re.match(r"craft (.*) using (.*)", action):
            return self._craft(match.group(1), match.group(2))
        if match := re.match(r"get ([0-9]+) (.*)", action):
            return self._get(int(match.group(1)), match.group(2))
        if action.startswith("inventory"):
            return self.describe(), 0, False
        return f"Could not execute {action}", 0, False

    def describe(self) -> str:
        """Return the inventory line; items used up are not listed, items fetched zero times are."""
        if not self.inventory:
            return "Inventory: You are not carrying anything."
        return "Inventory: " + "".join(f"[{text(name)}] ({count}) " for name, count in self.inventory.items())

    def _get(self, count: int, name: str) -> tuple[str, int, bool]:
        item = name.replace(" ", "_")
        if not self.world.is_raw(item):
            return f"Could not find {name}", 0, False
        self.inventory[item] = self.inventory.get(item, 0) + count
        return f"Got {count} {name}", *self._outcome(item)

    def _craft(self, wanted: str, listed: str) -> tuple[str, int, bool]:
        match = COUNTED.match(wanted)
        count, name = (int(match.group(1)), match.group(2)) if match else (1, wanted)
        output = name.replace(" ", "_")
        offered: list[tuple[str, int]] = []
        for part in listed.split(","):
            match = COUNTED.match(part.strip())
            if not match:
                return f"Wrong item format: {part.strip()}", 0, False
            offered.append((match.group(2).replace(" ", "_"), int(match.group(1))))
        recipe = next((r for r in self.world.recipes.get(output, ()) if self._matches(r, offered)), None)
        if refusal := self._refusal(output, count, offered, recipe):
            return refusal, 0, False
        assert recipe is not None
        for item, n in offered:
            self.inventory[item] -= n
            if not self.inventory[item]:
                del self.inventory[item]
        self.inventory[output] = self.inventory.get(output, 0) + recipe.count
        return f"Crafted {recipe.count} {NAMESPACE}{output}", *self._outcome(output)

    def _refusal(self, output: str, count: int, offered: list[tuple[str, int]], recipe: Recipe | None) -> str:
        """Return why the craft is refused, or "".

        As in AgentGym, missing items come before a missing recipe, and a tag has no item id.
        """
        is_tag = output in self.world.tags
        tag, item_id = (NAMESPACE + output if is_tag else None), (None if is_tag else NAMESPACE + output)
        if any(item not in self.inventory or self.inventory[item] < n for item, n in offered):
            return f"Could not find enough items to craft {item_id}"
        if recipe is None:
            named = f"ItemTag(tag={tag!r}, item_id={item_id!r})"
            return f"Could not find a valid recipe for ItemTagWithCount(item_tag={named}, count={count})"
        return ""

    def _matches(self, recipe: Recipe, offered: list[tuple[str, int]]) -> bool:
        """Return True if the offered items are exactly the recipe's, each tag met by one member.

        No recipe has two ingredients with a common member (tested), so nothing is counted twice.
        """
        left = list(offered)
        for name, count in recipe.inputs:
            choice = next(((m, count) for m in self.world.members(name) if (m, count) in left), None)
            if choice is None:
                return False
            left.remove(choice)
        return not left

    def _outcome(self, item: str) -> tuple[int, bool]:
        return (1, True) if item == self.goal else (0, False)
