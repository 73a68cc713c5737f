"""Monte Carlo tree search over an agent's turns (Sections 2.2, 3.1, 4.2): select, expand, simulate, back up. Pure.

It reaches the actor and the environment through `Simulator` alone, so it can be run on a script.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from random import Random
from typing import Protocol

from mcts_utils.replies import Reply
from mcts_utils.search.tree import Node, Tree, backup, nodes, path_steps
from mcts_utils.types import Step

RolloutSteps = tuple[Step, ...]  # of one rollout, from where it started


@dataclass(frozen=True)
class Rules:
    """The search's numbers (N_GEN, N_ROLLOUT, MAX_DEPTH and c of UCT; Section 4.2)."""

    n_gen: int = 4  # turns drawn at a node until it counts as expanded
    n_rollout: int = 8  # rollouts per iteration; 0: one descent by expansions instead
    max_depth: int = 20  # steps from the root to a leaf
    uct_c: float = 0.25


class Explorer(Protocol):
    """Actor and environment during one iteration. Every `path` is the steps from the root."""

    def sample(self, path: Sequence[Step], n: int) -> list[Reply]:
        """Draw up to n turns after the path; none if the actor's context is full."""

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """Execute the reply after the path and return its step."""

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[RolloutSteps | None]:
        """Run k rollouts from the path's end and return the steps of each, in order.

        Args:
            max_steps: of each rollout; None stands for what the path leaves of MAX_DEPTH.

        Returns:
            () for a rollout whose context is full at once, None for one whose beginning did not replay as recorded.
        """

    def counts(self) -> Mapping[str, int]:
        """Return what this iteration cost, by names of tree.STATS."""


class Simulator(Protocol):
    """Actor and environment of one task: an explorer for each iteration."""

    def iteration(self, number: int) -> AbstractContextManager[Explorer]:
        """Open iteration `number`, from which its requests' seeds derive; its sessions are returned at the end."""


def uct(node: Node, c: float) -> float:
    """Return UCT(s) = Q(s) + c * sqrt(ln N_parent / N(s)) (Section 2.2); infinite for a node without visits."""
    if node.visits == 0 or node.parent is None:
        return math.inf
    return node.q + c * math.sqrt(math.log(max(1, node.parent.visits)) / node.visits)


def run_search(
    tree: Tree, itera: int, rules: Rules, rng: Callable[[int], Random], simulator: Simulator
) -> Iterator[int]:
    """Bring the tree to `itera` iterations; yield the number of each completed one, so that the caller can save.

    `rng(i)` is the generator of iteration i, so a resumed tree continues as if it had never stopped. An iteration that
    raises leaves the tree half changed: resume from the last saved one.
    """
    for number in range(tree.stats["iterations"], itera):
        with simulator.iteration(number) as explorer:
            _Iteration(tree, rules, rng(number), explorer).run()
            for name, count in explorer.counts().items():
                tree.stats[name] += count
        tree.stats["iterations"] += 1
        yield number


class _Iteration:
    """One iteration: select a node, expand it, simulate from its best child, back up the rewards."""

    def __init__(self, tree: Tree, rules: Rules, rng: Random, explorer: Explorer) -> None:
        self.tree, self.rules, self.rng, self.explorer = tree, rules, rng, explorer
        self.exhausted = _exhausted_nodes(tree, rules)

    def run(self) -> None:
        """Run the iteration; the tree holds its result."""
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
        """Descend from the root by UCT, unvisited children first, to a node with turns left to try; return it.

        A node counts as expanded once N_GEN turns were drawn there, by expansion or by rollouts through it. Nodes below
        which nothing is left to try are passed over; if that is the whole tree, the root is simulated once more.
        """
        node = self.tree.root
        if node in self.exhausted:
            return node
        while node.drawn >= self.rules.n_gen and all(child.visits for child in node.children):
            node = self.choose(node)
        return node

    def expand(self, node: Node) -> Node:
        """Draw the missing ones of N_GEN turns in one request, execute the best child and return it.

        A terminal node is its own result, and so is the root of a tree with nothing left to try.
        """
        if node.is_terminal or (node in self.exhausted and self.rules.n_rollout):
            return node
        missing = self.rules.n_gen - node.drawn
        if missing > 0:
            drawn = self.explorer.sample(path_steps(node), missing)
            if not drawn:
                node.is_terminal = True
                return node
            for reply in drawn:
                self.candidate(node, reply).samples += 1
        child = self.choose(node)
        if not child.executed:
            fill(child, self.explorer.execute(path_steps(node), child.reply), self.rules.max_depth)
        return child

    def candidate(self, node: Node, reply: Reply) -> Node:
        """Return the child of that action, new or known: turns with the same action share one child."""
        same = [child for child in node.children if child.action == reply.action]
        return same[0] if same else self.tree.add(node, *reply)

    def choose(self, node: Node) -> Node:
        """Return the best child: an unvisited one, the most drawn first, else by UCT; ties by chance."""
        children = [child for child in node.children if child not in self.exhausted] or node.children
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
        """Run N_ROLLOUT rollouts from the node; add their steps as nodes and back up their final rewards."""
        rollouts = self.explorer.rollouts(path_steps(node), self.rules.n_rollout)
        for steps in rollouts:
            if steps is not None:
                leaf = attach(self.tree, node, steps, self.rules.max_depth)
                leaf.is_terminal = True
                backup(leaf, leaf.reward)
                self.tree.stats["rollouts"] += 1
        if not any(steps is not None for steps in rollouts):
            backup(node, node.reward)


def attach(tree: Tree, node: Node, steps: RolloutSteps, max_depth: float) -> Node:
    """Add a rollout's steps below the node and return its leaf.

    A step joins a node with the same action and the same result.
    """
    for step in steps:
        same = [child for child in node.children if matches(child, step)]
        child = same[0] if same else tree.add(node, step.reply, step.action)
        if not child.executed:
            child.reply, child.cut = step.reply, step.cut  # the turn that the rest of this rollout saw
            fill(child, step, max_depth)
        child.samples += 1
        node = child
    return node


def matches(node: Node, step: Step) -> bool:
    """Return True if the node has the step's action, and its result unless it was not executed yet."""
    known = (node.obs, node.reward, node.done)
    return node.action == step.action and (
        not node.executed or known == (step.observation, step.reward, step.done)
    )


def fill(node: Node, step: Step, max_depth: float) -> None:
    """Record the result of a candidate's execution on its node."""
    node.obs, node.reward, node.done, node.disaster = step.observation, step.reward, step.done, step.disaster
    node.executed, node.answers = True, step.answers
    node.is_terminal = step.done or step.disaster or node.depth >= max_depth


def _exhausted_nodes(tree: Tree, rules: Rules) -> set[Node]:
    """Return the nodes below which nothing is left to try: terminal, or expanded with only such children."""
    exhausted: set[Node] = set()
    for node in reversed(list(nodes(tree))):  # children before parents
        drawn = node.visits > 0 and node.drawn >= rules.n_gen
        tried = drawn and all(child in exhausted for child in node.children)
        if (node.is_terminal and node.visits) or tried:
            exhausted.add(node)
    return exhausted
