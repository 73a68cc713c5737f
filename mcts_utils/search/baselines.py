"""What a task's model calls buy without a search: best-of-N rollouts, and direct revision of what failed. Pure.

Both fill an ordinary tree, so that everything that reads trees reads theirs. The unit of a budget is the completion: a
request for n candidates is n of them. A budget is spent to the last one; what it cuts off is in the tree, but is no
trajectory (its last node is not terminal). Where budgets come from is budgets.py's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Protocol

from mcts_utils.prompts import WAIT_ACTION, WAIT_OBSERVATION, is_signal_step, signal
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.mcts import Rules, Trail, attach, fill
from mcts_utils.search.tree import Node, Tree, backup, nodes, path_steps, step_of
from mcts_utils.types import Step

SEARCH = "mcts"  # search.py
WASTED = 2  # waves in a row without a completion: not even the opening fits the actor's context


@dataclass(frozen=True)
class Baseline:
    """Which strategy a run follows instead of the search, and what it may spend."""

    strategy: str  # a key of STRATEGIES
    budgets: Mapping[int, int]  # task index -> completions, at least 1
    source: str = ""  # folder of the search whose calls these are; empty: a number was given


class Explorer(Protocol):
    """Actor and environment for one wave; see search.Explorer."""

    def rollouts(self, path: Sequence[Step], k: int, most: int | None = None) -> list[Trail | None]:
        """k rollouts from the path's end, each of at most `most` steps."""

    def counts(self) -> Mapping[str, int]:
        """What this wave cost, by names of tree.STATS."""


class Simulator(Protocol):
    """See search.Simulator."""

    def iteration(self, number: int) -> AbstractContextManager[Explorer]:
        """Open the wave; its requests' seeds derive from its number."""


Wave = Callable[[Explorer, int, Random], None]  # (actor and environment, completions left, random choices)


def best_of_n(
    tree: Tree, budget: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Independent rollouts from the root until the budget is spent; as many at once as it surely pays for.

    Yields each wave's number when it is whole, as search.search does. Equal beginnings are the same nodes.
    """

    def wave(explorer: Explorer, left: int, _: Random) -> None:
        most = min(left, rules.max_depth)
        at_once = max(1, min(rules.n_rollout, left // rules.max_depth))
        for trail in explorer.rollouts((), at_once, most):
            if trail is not None:
                _keep(tree, tree.root, trail, most, most < rules.max_depth)

    return _spend(tree, budget, wave, rng, simulator)


def direct_revision(
    tree: Tree, budget: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Attempts of MAX_DEPTH steps in one episode: behind each that failed stands a revision signal, then the next.

    The end of an attempt is terminal, though the next one follows it. An episode ends when it is solved, when the
    environment ends it, or when the context is full; the next one starts at the root. One attempt is one wave.
    """

    def wave(explorer: Explorer, left: int, draw: Random) -> None:
        start = open_end(tree) or tree.root
        most = min(left, rules.max_depth)
        trail = explorer.rollouts(path_steps(start), 1, most)[0]
        if not trail:  # the context is full, or the episode does not replay: it ended with the attempt before
            _withdraw(tree, start)
            return
        leaf = _keep(tree, start, trail, most, most < rules.max_depth)
        over = leaf.done or leaf.disaster or len(trail) < most or leaf.reward >= 1 - EPSILON
        if not over and left > most:
            _revise(tree, leaf, draw)

    return _spend(tree, budget, wave, rng, simulator)


STRATEGIES = {"best_of_n": best_of_n, "direct_revision": direct_revision}


def open_end(tree: Tree) -> Node | None:
    """The revision signal that nothing follows yet: where the episode under way stands."""
    found = [
        node
        for node in nodes(tree)
        if node.executed
        and not (node.is_terminal or node.children or node is tree.root)
        and is_signal_step(step_of(node))
    ]
    return found[-1] if found else None


def _spend(
    tree: Tree, budget: int, wave: Wave, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Waves until the budget is spent, or nothing can be asked any more."""
    wasted = 0
    while (left := budget - tree.stats["completions"]) > 0 and wasted < WASTED:
        number = tree.stats["iterations"]
        with simulator.iteration(number) as explorer:
            wave(explorer, left, rng(number))
            for name, count in explorer.counts().items():
                tree.stats[name] += count
        wasted = wasted + 1 if budget - tree.stats["completions"] == left else 0
        tree.stats["iterations"] += 1
        yield number


def _keep(tree: Tree, start: Node, trail: Trail, most: int, cut: bool) -> Node:
    """A rollout's last node. It is a trajectory's end, unless the budget cut it off after `most` steps."""
    leaf = attach(tree, start, trail, math.inf)
    if leaf.done or leaf.disaster or not (cut and len(trail) == most):
        leaf.is_terminal = True
        backup(leaf, leaf.reward)
        tree.stats["rollouts"] += 1
    return leaf


def _revise(tree: Tree, leaf: Node, draw: Random) -> None:
    """Put the revision signal behind a failed attempt: a node of its own, so that it is known for the open end."""
    reply = signal(draw)
    node = tree.add(leaf, reply, WAIT_ACTION)
    fill(node, Step(reply, WAIT_ACTION, WAIT_OBSERVATION, leaf.reward), math.inf)


def _withdraw(tree: Tree, node: Node) -> None:
    """Take the signal away that nothing will follow: it is the newest node."""
    if node.parent is not None:
        node.parent.children.remove(node)
        tree.stats["nodes"] -= 1
