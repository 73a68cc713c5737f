"""Baselines that spend the search's completions without a search: best-of-N, and direct revision of failures. Pure.

Both fill an ordinary tree, so that every reader of trees reads theirs too. The unit of a budget is the completion: a
request for n candidates is n of them. A budget is spent completely; a rollout that it cuts off is in the tree, but is
no trajectory (its last node is not terminal). Where budgets come from is in budget.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

from mcts_utils.prompts import WAIT_ACTION, WAIT_OBSERVATION, is_signal_step, revision_signal
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.mcts import Explorer, RolloutSteps, Rules, Simulator, attach, fill
from mcts_utils.search.tree import Node, Tree, backup, nodes, path_steps, step_of
from mcts_utils.types import Step

SEARCH = "mcts"  # the strategy of mcts.py
LIVE = "live"  # that of revision/live.py
MAX_IDLE_WAVES = 2  # in a row without a completion: not even the opening fits the actor's context


@dataclass(frozen=True)
class Baseline:
    """The strategy that a run follows instead of the search, and what it may spend."""

    strategy: str  # a key of STRATEGIES
    budgets: Mapping[int, int]  # task index -> completions, at least 1
    source: str = ""  # folder of the search that spent these completions; empty: a number was given


Wave = Callable[[Explorer, int, Random], None]  # (actor and environment, completions left, random choices)


def best_of_n(
    tree: Tree, budget: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Run independent rollouts from the root until the budget is spent, as many at once as it surely pays for.

    Yields the number of each completed wave, as mcts.search does. Equal beginnings share their nodes.
    """

    def wave(explorer: Explorer, left: int, _: Random) -> None:
        max_steps = min(left, rules.max_depth)
        at_once = max(1, min(rules.n_rollout, left // rules.max_depth))
        for steps in explorer.rollouts((), at_once, max_steps):
            if steps is not None:
                _attach_rollout(tree, tree.root, steps, max_steps, max_steps < rules.max_depth)

    return _run_waves(tree, budget, wave, rng, simulator)


def direct_revision(
    tree: Tree, budget: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Run attempts of MAX_DEPTH steps in one episode: a revision signal and the next attempt follow each failure.

    The end of an attempt is terminal, although the next one follows it. An episode ends when it is solved, when the
    environment ends it, or when the context is full; the next one starts at the root. One attempt is one wave.
    """

    def wave(explorer: Explorer, left: int, draw: Random) -> None:
        start = open_end(tree) or tree.root
        max_steps = min(left, rules.max_depth)
        steps = explorer.rollouts(path_steps(start), 1, max_steps)[0]
        if not steps:  # full context, or the episode does not replay: it ended with the previous attempt
            _remove_signal(tree, start)
            return
        leaf = _attach_rollout(tree, start, steps, max_steps, max_steps < rules.max_depth)
        over = leaf.done or leaf.disaster or len(steps) < max_steps or leaf.reward >= 1 - EPSILON
        if not over and left > max_steps:
            _add_signal(tree, leaf, draw)

    return _run_waves(tree, budget, wave, rng, simulator)


STRATEGIES = {"best_of_n": best_of_n, "direct_revision": direct_revision}


def open_end(tree: Tree) -> Node | None:
    """Return the revision signal without a successor, where the current episode continues, or None."""
    leaves = [node for node in nodes(tree) if node.executed and not (node.is_terminal or node.children)]
    found = [node for node in leaves if node is not tree.root and is_signal_step(step_of(node))]
    return found[-1] if found else None


def _run_waves(
    tree: Tree, budget: int, wave: Wave, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Run waves until the budget is spent or MAX_IDLE_WAVES in a row cost nothing."""
    idle = 0
    while (left := budget - tree.stats["completions"]) > 0 and idle < MAX_IDLE_WAVES:
        number = tree.stats["iterations"]
        with simulator.iteration(number) as explorer:
            wave(explorer, left, rng(number))
            for name, count in explorer.counts().items():
                tree.stats[name] += count
        idle = idle + 1 if budget - tree.stats["completions"] == left else 0
        tree.stats["iterations"] += 1
        yield number


def _attach_rollout(tree: Tree, start: Node, steps: RolloutSteps, max_steps: int, limited: bool) -> Node:
    """Add a rollout below `start` and return its last node.

    The node ends a trajectory, unless the budget limited the rollout to `max_steps` and it used all of them.
    """
    leaf = attach(tree, start, steps, math.inf)
    if leaf.done or leaf.disaster or not (limited and len(steps) == max_steps):
        leaf.is_terminal = True
        backup(leaf, leaf.reward)
        tree.stats["rollouts"] += 1
    return leaf


def _add_signal(tree: Tree, leaf: Node, draw: Random) -> None:
    """Add the revision signal after a failed attempt, as a node of its own, by which `open_end` finds it."""
    reply = revision_signal(draw, tree.settings.get("actions", "any"))
    node = tree.add(leaf, reply, WAIT_ACTION)
    fill(node, Step(reply, WAIT_ACTION, WAIT_OBSERVATION, leaf.reward), math.inf)


def _remove_signal(tree: Tree, node: Node) -> None:
    """Remove the signal that no attempt will follow; it is the newest node. The root stays."""
    if node.parent is not None:
        node.parent.children.remove(node)
        tree.stats["nodes"] -= 1
