"""A planner for TextCraft: actions that reach a goal from any inventory, using listed commands only. Pure.

It knows the recipes, so it is an oracle: for demonstrations of the bundled actor, for the test that every goal can be
reached, and for the progress that a step makes. Plans are not optimal where recipes compete for an item.
"""

from dataclasses import dataclass
from math import ceil

from mcts_utils.servers.textcraft.world import Recipe, World, text

FETCH, CRAFT = "get", "craft"


class NoPlan(Exception):
    """The listed commands do not reach the goal."""


@dataclass(frozen=True)
class Action:
    """One planned action."""

    command: str
    kind: str  # FETCH or CRAFT
    item: str  # what it yields
    purpose: str | None  # the item it is needed for; None for the goal itself


class Planner:
    """Makes plans for one goal under one list of commands. Not thread-safe."""

    def __init__(self, world: World, goal: str, commands: list[str]) -> None:
        self.world = world
        self.goal = goal
        self._rank = {line: i for i, line in enumerate(commands)}
        self._effort: dict[str, float] = {}

    def plan(self, inventory: dict[str, int]) -> list[Action]:
        """Return actions that craft the goal once more from `inventory` (item -> count).

        Raises:
            NoPlan: the listed commands do not reach the goal.
        """
        self._stock = {item: n for item, n in inventory.items() if n > 0 and item != self.goal}
        self._actions: list[Action] = []
        self._provide(self.goal, 1, None, frozenset())
        return self._actions

    def recipes(self, item: str) -> list[Recipe]:
        """Return the listed recipes of an item, least effort first, ties in listed order."""
        listed = [r for r in self.world.recipes.get(item, ()) if r.line() in self._rank]
        return sorted(listed, key=lambda r: (self._recipe_effort(r, frozenset([item])), self._rank[r.line()]))

    def _recipe_effort(self, recipe: Recipe, above: frozenset[str]) -> float:
        return 1 + sum(
            min(self._item_effort(m, above) for m in self.world.members(name)) for name, _ in recipe.inputs
        )

    def _item_effort(self, item: str, above: frozenset[str]) -> float:
        """Return a rough number of actions for one of the item; infinite if no listed command makes it.

        `above` holds the items that are being made of it, which it cannot need itself.
        """
        if self.world.is_raw(item):
            return 1.0
        if item in above:
            return float("inf")
        if item not in self._effort:
            listed = [r for r in self.world.recipes.get(item, ()) if r.line() in self._rank]
            effort = min((self._recipe_effort(r, above | {item}) for r in listed), default=float("inf"))
            if above - {self.goal} and effort == float("inf"):
                return effort  # blocked by the items above; it may be possible elsewhere
            self._effort[item] = effort
        return self._effort[item]

    def _choose_member(self, name: str, count: int) -> str:
        """Return the member to use for an ingredient: one in stock, else the least effort, ties in listed order."""
        members = self.world.members(name)
        if len(members) == 1:
            return members[0]
        enough = [m for m in members if self._stock.get(m, 0) >= count]
        if enough:
            return enough[0]

        def listed_at(member: str) -> int:
            ranks = [
                self._rank[r.line()] for r in self.world.recipes.get(member, ()) if r.line() in self._rank
            ]
            return min(ranks, default=-1)

        return min(
            members, key=lambda m: (self._item_effort(m, frozenset()), -self._stock.get(m, 0), listed_at(m))
        )

    def _provide(self, item: str, count: int, purpose: str | None, above: frozenset[str]) -> None:
        """Append actions until `count` of the item are in stock; raise NoPlan if the listed commands do not make it."""
        missing = count - self._stock.get(item, 0)
        if missing <= 0:
            return
        if self.world.is_raw(item):
            command = f"get {missing} {text(item)}"
            self._actions.append(Action(command, FETCH, item, purpose))
            self._stock[item] = count
            return
        if item in above:
            raise NoPlan(f"{item} needs itself")
        for recipe in self.recipes(item):
            stock, done = dict(self._stock), len(self._actions)
            try:
                return self._make(recipe, ceil(missing / recipe.count), purpose, above | {item})
            except NoPlan:
                self._stock, self._actions = stock, self._actions[:done]
        raise NoPlan(f"no listed command makes {item}")

    def _make(self, recipe: Recipe, times: int, purpose: str | None, above: frozenset[str]) -> None:
        """Append actions that provide the recipe's inputs, then the craft command `times` times.

        Raises:
            NoPlan: an input cannot be made, or the inputs use each other up.
        """
        chosen = [(self._choose_member(name, n * times), n) for name, n in recipe.inputs]
        for _ in range(len(chosen) + 1):  # making one input can use up another
            for item, n in chosen:
                self._provide(item, n * times, recipe.output, above)
            if all(self._stock.get(item, 0) >= n * times for item, n in chosen):
                break
        else:
            raise NoPlan(f"the inputs of {recipe.output} use each other up")
        needs = ", ".join(f"{n} {text(item)}" for item, n in chosen)
        command = f"craft {recipe.count} {text(recipe.output)} using {needs}"
        for _ in range(times):
            for item, n in chosen:
                self._stock[item] -= n
            self._stock[recipe.output] = self._stock.get(recipe.output, 0) + recipe.count
            self._actions.append(Action(command, CRAFT, recipe.output, purpose))
