"""Monte Carlo tree search over an agent's turns (Sections 2.2, 3.1, 4.2): select, expand, simulate, back up. Pure.

It reaches the actor and the environment through `Simulator` alone, so it can be run on a script.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Protocol

from mcts_utils.search.tree import Node, Tree, backup, nodes, path_steps, uct
from mcts_utils.types import Step

Trail = tuple[Step, ...]


@dataclass(frozen=True)
class Rules:
    """The search's numbers (N_GEN, N_ROLLOUT, MAX_DEPTH and c of UCT; Section 4.2)."""

    n_gen: int = 4  # turns drawn at a node until it counts as expanded
    n_rollout: int = 8  # rollouts per iteration; 0: one descent by expansions instead
    max_depth: int = 20  # steps from the root to a leaf
    uct_c: float = 0.25


class Explorer(Protocol):
    """Actor and environment for one iteration. `path` is the steps from the root."""

    def sample(self, path: Sequence[Step], n: int) -> list[tuple[str, str]]:
        """(reply, action) of up to n turns drawn after the path; none if the actor's context is full."""

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """The step that the reply makes after the path."""

    def rollouts(self, path: Sequence[Step], k: int) -> list[Trail | None]:
        """k rollouts from the path's end to a terminal state, in order; () where the context is full at once.

        None stands for a rollout whose beginning did not replay as recorded.
        """

    def counts(self) -> Mapping[str, int]:
        """What this iteration cost, by names of tree.STATS."""


class Simulator(Protocol):
    """Makes an explorer per iteration and takes its sessions back."""

    def iteration(self, number: int) -> AbstractContextManager[Explorer]:
        """Open the iteration; its requests' seeds derive from its number."""


def search(
    tree: Tree, itera: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Bring the tree to `itera` iterations; yields each one's number when it is whole, so that the caller can save.

    `rng(i)` is iteration i's generator, so a tree that is resumed goes on as if it had never stopped. An iteration that
    raises leaves the tree half changed: go on from the last one saved.
    """
    for number in range(tree.stats["iterations"], itera):
        with simulator.iteration(number) as explorer:
            _Iteration(tree, rules, rng(number), explorer).run()
            for name, count in explorer.counts().items():
                tree.stats[name] += count
        tree.stats["iterations"] += 1
        yield number


class _Iteration:
    def __init__(self, tree: Tree, rules: Rules, rng: Random, explorer: Explorer) -> None:
        self.tree, self.rules, self.rng, self.explorer = tree, rules, rng, explorer
        self.spent = _spent_nodes(tree, rules)

    def run(self) -> None:
        selected = self.select()
        node = self.expand(selected)
        if self.rules.n_rollout == 0:
            while not node.is_terminal:
                node = self.expand(node)
        if node.is_terminal:
            backup(node, node.reward)
        else:
            self.simulate(node)

    def select(self) -> Node:
        """From the root by UCT, unvisited children first, down to a node with turns left to try.

        A node counts as expanded once N_GEN turns were drawn there, by expansion or by rollouts through it. Nodes under
        which nothing is left to try are passed over; if that is the whole tree, the root is simulated once more.
        """
        node = self.tree.root
        if node in self.spent:
            return node
        while node.drawn >= self.rules.n_gen and all(child.visits for child in node.children):
            node = self.choose(node)
        return node

    def expand(self, node: Node) -> Node:
        """Draw what the node lacks of N_GEN turns, in one request, and execute its best child: the node to simulate.

        A terminal node is its own result, and so is the root of a tree with nothing left to try.
        """
        if node.is_terminal or (node in self.spent and self.rules.n_rollout):
            return node
        missing = self.rules.n_gen - node.drawn
        if missing > 0:
            drawn = self.explorer.sample(path_steps(node), missing)
            if not drawn:
                node.is_terminal = True
                return node
            for reply, action in drawn:
                self.candidate(node, reply, action).samples += 1
        child = self.choose(node)
        if not child.executed:
            fill(child, self.explorer.execute(path_steps(node), child.reply), self.rules.max_depth)
        return child

    def candidate(self, node: Node, reply: str, action: str) -> Node:
        """The child of that action: siblings with the same action are one child."""
        same = [child for child in node.children if child.action == action]
        return same[0] if same else self.tree.add(node, reply, action)

    def choose(self, node: Node) -> Node:
        """The best child: an unvisited one, the most drawn first, else by UCT; ties by chance."""
        children = [child for child in node.children if child not in self.spent] or node.children
        unvisited = [child for child in children if not child.visits]
        scores = [
            (float(child.samples) if unvisited else uct(child, self.rules.uct_c), child)
            for child in unvisited or children
        ]
        if len(children) > 1:
            self.tree.stats["selections"] += 1
            self.tree.stats["selections_uct"] += not unvisited
        best = max(score for score, _ in scores)
        return self.rng.choice([child for score, child in scores if score == best])

    def simulate(self, node: Node) -> None:
        """k rollouts from the node; their steps become nodes, and their final rewards go up to the root."""
        trails = self.explorer.rollouts(path_steps(node), self.rules.n_rollout)
        for trail in trails:
            if trail is not None:
                leaf = attach(self.tree, node, trail, self.rules.max_depth)
                leaf.is_terminal = True
                backup(leaf, leaf.reward)
                self.tree.stats["rollouts"] += 1
        if not any(trail is not None for trail in trails):
            backup(node, node.reward)


def attach(tree: Tree, node: Node, trail: Trail, max_depth: float) -> Node:
    """The leaf of a rollout; its steps join nodes with the same action and the same answer to it."""
    for step in trail:
        same = [child for child in node.children if matches(child, step)]
        child = same[0] if same else tree.add(node, step.reply, step.action)
        if not child.executed:
            child.reply = step.reply  # the turn that the rest of this rollout saw
            fill(child, step, max_depth)
        child.samples += 1
        node = child
    return node


def matches(node: Node, step: Step) -> bool:
    """True if the step can be told as this node."""
    known = (node.obs, node.reward, node.done)
    return node.action == step.action and (
        not node.executed or known == (step.observation, step.reward, step.done)
    )


def fill(node: Node, step: Step, max_depth: float) -> None:
    """Record on a candidate what its execution showed."""
    node.obs, node.reward, node.done, node.disaster = step.observation, step.reward, step.done, step.disaster
    node.executed = True
    node.is_terminal = step.done or step.disaster or node.depth >= max_depth


def _spent_nodes(tree: Tree, rules: Rules) -> set[Node]:
    """Nodes under which nothing is left to try: terminal, or expanded with nothing but such children."""
    spent: set[Node] = set()
    for node in reversed(list(nodes(tree))):  # children before parents
        tried = (
            node.visits > 0 and node.drawn >= rules.n_gen and all(child in spent for child in node.children)
        )
        if (node.is_terminal and node.visits) or tried:
            spent.add(node)
    return spent
