"""What is true of a tree's steps, by two oracles: TextCraft's planner, and the search's own values.

An oracle maps node ids to what it says of the step that led there; where it cannot say anything, the node is left out.
It knows no verdicts (agreement.py compares) and reads no files.
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
Held = tuple[tuple[str, int], ...]  # an inventory: (item, count), sorted
Plan = tuple[str, ...]  # the item that each planned action yields


@dataclass(frozen=True, slots=True)
class Truth:
    """What an oracle says of one step."""

    label: Label
    reason: str  # of a bad step: "refused", "no change: ...", "farther", "no plan", "less value"


@dataclass(frozen=True, slots=True)
class ValueRule:
    """When a step is bad by the mean backed-up reward Q of its node (Section 2.2)."""

    kind: str = "parent"  # or "threshold"
    threshold: float = 0.5  # of Q, in [0, 1]; for "threshold" only
    min_visits: int = 2  # a node that fewer rollouts passed through is left out

    def __str__(self) -> str:
        against = "Q of the parent" if self.kind == "parent" else f"{self.threshold:g}"
        return f"Q against {against}, visits >= {self.min_visits}"


def by_plan(tree: Tree) -> dict[int, Truth]:
    """The planner's word on every executed step of a TextCraft tree, by node id.

    The distance is the number of actions of the plan from the inventory, 0 once the goal is made. A step is good if it
    brings the distance down (or a plan into being), bad if it was refused, leaves the distance as it is, adds to it or
    loses the plan. A look at the inventory is neutral.

    Left out: steps before and after which there is no plan, revision signals, steps that this world answers otherwise
    than the tree says (and all behind them), and whole trees whose opening names no goal of this world.
    """
    opening = OPENING.search(tree.task.opening)
    if opening is None or goal_of(opening) not in load_world().recipes:
        return {}
    goal, commands = goal_of(opening), opening["commands"]
    found: dict[int, Truth] = {}
    todo: list[tuple[Node, dict[str, int]]] = [(child, {}) for child in tree.root.children]
    while todo:
        node, before = todo.pop()
        if not node.executed:
            continue
        after = dict(before)
        step = step_of(node)
        if not is_signal_step(step):
            observation, reward, _ = Session(load_world(), goal, after).step(node.action)
            if observation != node.obs:
                continue
            truth = _of_step(tree, node, (goal, commands), (before, after), reward > 0)
            if truth is not None:
                found[node.id] = truth
        todo += [(child, after) for child in node.children]
    return found


def _of_step(
    tree: Tree, node: Node, task: tuple[str, str], held: tuple[dict[str, int], dict[str, int]], made: bool
) -> Truth | None:
    step = step_of(node)
    if is_refused(tree.task.env, step):
        return Truth("bad", "refused")
    if is_look(tree.task.env, step):
        return Truth("neutral", "look")
    ahead = plan_from(*task, _key(held[0]))
    behind: Plan | None = () if made else plan_from(*task, _key(held[1]))
    got = {item for item, n in held[1].items() if n > held[0].get(item, 0)}
    return by_plans(ahead, behind, got)


def by_plans(ahead: Plan | None, behind: Plan | None, got: Set[str]) -> Truth | None:
    """What a step was that got these items and left the plan `behind` where it found `ahead`; None: no plan."""
    if behind is None:
        return None if ahead is None else Truth("bad", "no plan")
    if ahead is None or len(behind) < len(ahead):
        return Truth("good", "nearer")
    if len(behind) > len(ahead):
        return Truth("bad", "farther")
    # One of three planks is no nearer in actions: all that is missing comes with one action.
    return Truth("bad", "no change: too few" if got & set(ahead) else "no change: not needed")


@lru_cache(maxsize=1 << 16)
def plan_from(goal: str, commands: str, held: Held) -> Plan | None:
    """What the plan's actions yield, from an inventory and under the listed commands (one a line); None: no plan."""
    try:
        return tuple(
            action.item for action in Planner(load_world(), goal, commands.split("\n")).plan(dict(held))
        )
    except NoPlan:
        return None


def _key(held: Mapping[str, int]) -> Held:
    return tuple(sorted((item, n) for item, n in held.items() if n > 0))


def by_value(tree: Tree, rule: ValueRule) -> dict[int, Truth]:
    """The search's word on every step with enough visits, by node id.

    "parent": bad if Q fell from the parent to the node, good if it rose, neutral if it stayed (all rollouts went the
    same way). "threshold": bad if Q is below the threshold, else good.
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
