"""Two oracles for the steps of a tree: TextCraft's planner, and the search's own values.

An oracle maps node ids to the truth about the step that led there; nodes that it cannot label are left out. It knows no
verdicts (agreement.py compares them) and reads no files.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from mcts_utils.prompts import is_signal_step
from mcts_utils.rollouts.steps import EPSILON, is_look, is_refused
from mcts_utils.search.tree import Node, Tree, nodes, step_of
from mcts_utils.servers.textcraft.expert import OPENING, goal_of
from mcts_utils.servers.textcraft.planner import NoPlan, Planner
from mcts_utils.servers.textcraft.world import Session, load_world

Label = Literal["good", "bad", "neutral"]
RULES = ("parent", "threshold")
Inventory = tuple[tuple[str, int], ...]  # sorted (item, count)
PlannedItems = tuple[str, ...]  # the item that each action of a plan yields


@dataclass(frozen=True, slots=True)
class Truth:
    """An oracle's label of one step."""

    label: Label
    reason: str  # for a bad step: "refused", "no change: ...", "farther", "no plan", "less value"


@dataclass(frozen=True, slots=True)
class ValueRule:
    """Rule that calls a step bad by the mean backed-up reward Q of its node (Section 2.2)."""

    kind: str = "parent"  # or "threshold"
    threshold: float = 0.5  # of Q, in [0, 1]; for "threshold" only
    min_visits: int = 2  # nodes with fewer are left out

    def __str__(self) -> str:
        against = "Q of the parent" if self.kind == "parent" else f"{self.threshold:g}"
        return f"Q against {against}, visits >= {self.min_visits}"


def planner_truths(tree: Tree) -> dict[int, Truth]:
    """Return node id -> the planner's truth for the executed steps of a TextCraft tree.

    The distance of an inventory is the number of actions in the plan from there; 0 once the goal is made. A step is
    good if it reduces the distance or makes a plan possible. It is bad if it was refused, does not reduce the distance,
    or makes a plan impossible. A look at the inventory is neutral.

    Left out are steps with no plan before and after, revision signals, steps whose observation differs from that of
    this world (and all steps below them), and trees whose opening names no goal of this world.
    """
    opening = OPENING.search(tree.task.opening)
    if opening is None or goal_of(opening) not in load_world().recipes:
        return {}
    task = goal_of(opening), opening["commands"]
    found: dict[int, Truth] = {}
    todo: list[tuple[Node, dict[str, int]]] = [(child, {}) for child in tree.root.children]
    while todo:
        node, before = todo.pop()
        if not node.executed:
            continue
        after, step = dict(before), step_of(node)
        if not is_signal_step(step):
            observation, reward, _ = Session(load_world(), task[0], after).step(node.action)
            if observation != node.obs:
                continue
            if is_refused(tree.task.env, step):
                truth: Truth | None = Truth("bad", "refused")
            elif is_look(tree.task.env, step):
                truth = Truth("neutral", "look")
            else:
                plans = plan_from(*task, _inventory(before)), plan_from(*task, _inventory(after))
                gained = {item for item, n in after.items() if n > before.get(item, 0)}
                truth = truth_of_plans(plans[0], () if reward > 0 else plans[1], gained)
            if truth is not None:
                found[node.id] = truth
        todo += [(child, after) for child in node.children]
    return found


def truth_of_plans(before: PlannedItems | None, after: PlannedItems | None, gained: Set[str]) -> Truth | None:
    """Return the truth about a step from the plans before and after it; None if there is neither.

    Args:
        before, after: the items of each plan; None: there is no plan.
        gained: the items that the step added to the inventory.
    """
    if after is None:
        return None if before is None else Truth("bad", "no plan")
    if before is None or len(after) < len(before):
        return Truth("good", "nearer")
    if len(after) > len(before):
        return Truth("bad", "farther")
    # One of three planks saves no action: a single action yields all that is missing.
    return Truth("bad", "no change: too few" if gained & set(before) else "no change: not needed")


@lru_cache(maxsize=1 << 16)
def plan_from(goal: str, commands: str, inventory: Inventory) -> PlannedItems | None:
    """Return the items of the plan from an inventory, or None without a plan. `commands`: the listed ones, by line."""
    try:
        plan = Planner(load_world(), goal, commands.split("\n")).plan(dict(inventory))
        return tuple(action.item for action in plan)
    except NoPlan:
        return None


def _inventory(held: Mapping[str, int]) -> Inventory:
    return tuple(sorted((item, n) for item, n in held.items() if n > 0))


def value_truths(tree: Tree, rule: ValueRule) -> dict[int, Truth]:
    """Return node id -> the truth by the search's values, for steps with enough visits.

    Rule "parent": bad if Q is lower than the parent's, good if it is higher, neutral if it is equal (as when all
    rollouts of the parent passed through the node). Rule "threshold": bad if Q is below the threshold, else good.
    """
    found: dict[int, Truth] = {}
    for node in nodes(tree):
        if node.parent is None or not node.executed or node.visits < max(1, rule.min_visits):
            continue
        gap = node.q - (node.parent.q if rule.kind == "parent" else rule.threshold)
        if gap < -EPSILON:
            found[node.id] = Truth("bad", "less value")
        elif gap > EPSILON or rule.kind == "threshold":
            found[node.id] = Truth("good", "more value")
        else:
            found[node.id] = Truth("neutral", "same value")
    return found
