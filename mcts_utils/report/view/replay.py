"""The course of a finished search: which nodes each iteration drew, chose and backed up.

A tree's file holds the final counts alone. Here the search itself (search/mcts.py) runs again, with an explorer that
answers from the finished tree; the result counts only if it ends with exactly the counts of the file. Nothing is
executed and no actor is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random

from mcts_utils.replies import Reply
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.tree import Node, Tree, new_tree, nodes, path_nodes, step_of
from mcts_utils.types import Step

Course = list[dict[str, int | list[int]]]
TRIES = 100  # orders of the rollouts that are tried, since the file does not hold it


def course(tree: Tree) -> Course | None:
    """Return what each iteration did, or None where the counts of the file do not tell it, or it was no MCTS.

    Returns:
        for each iteration: `nodes`, the number of nodes before it; `chosen`, the nodes that it went through, from the
        root's child to where its rollouts began; `ends`, the nodes whose reward it backed up.
    """
    names = ("n_gen", "n_rollout", "max_depth", "uct_c")
    values = [tree.settings.get(name) for name in names]
    if tree.settings.get("strategy", "mcts") != "mcts" or not all(
        isinstance(v, (int, float)) for v in values
    ):
        return None
    rules = Rules(*values)  # type: ignore[arg-type]
    return next(filter(None, (_attempt(tree, rules, seed) for seed in range(TRIES))), None)


def _attempt(tree: Tree, rules: Rules, seed: int) -> Course | None:
    """Return the course in one order of the rollouts; None if it does not end with the tree's counts."""
    again, found = _Again(tree, seed), Course()
    try:
        again.start()
        for _ in run_search(again.copy, tree.stats["iterations"], rules, lambda _: _Ties(again), again):
            found.append(again.finish())
            again.start()
    except LookupError:
        return None
    return found if _counts(again.copy) == _counts(tree) else None


def _counts(tree: Tree) -> dict[int, tuple[int, int]]:
    return {node.id: (node.visits, node.samples) for node in nodes(tree)}


class _Again:
    """Simulator and explorer of a second run over a finished tree: it draws what was drawn."""

    def __init__(self, tree: Tree, seed: int) -> None:
        """Take rollouts in the order of their nodes; with a seed above 0, leave one to a later iteration by chance."""
        self.chance = Random(seed)
        self.seed, self.doubt = seed, 0.2 * (seed % 2)
        self.known = {node.id: node for node in nodes(tree)}
        self.copy = new_tree(tree.task)
        self.mine: dict[int, Node] = {0: self.copy.root}

    def start(self) -> None:
        """Begin an iteration."""
        self.first, self.at, self.chosen = len(self._copied()), self.copy.root, list[int]()
        self.before = {n.id: _own_visits(n) for n in self.mine.values()}

    def finish(self) -> dict[str, int | list[int]]:
        """Return what the iteration did; raise LookupError if it cannot have been that."""
        if any(node.visits > self.known[i].visits for i, node in self._copied().items()):
            raise LookupError
        now = {n.id: _own_visits(n) for n in self._copied().values()}
        ends = [i for i, visits in now.items() for _ in range(visits - self.before.get(i, 0))]
        return {"nodes": self.first, "chosen": self.chosen, "ends": ends}

    def _copied(self) -> dict[int, Node]:
        self.mine = {node.id: node for node in nodes(self.copy)}
        return self.mine

    def pick(self, seq: Sequence[Node]) -> Node:
        """Return the node below which the next new node was drawn, else one that has visits left."""
        upcoming = self.known.get(len(self._copied()))
        way = {node.id for node in path_nodes(upcoming)} if upcoming else set()
        self.at = max(seq, key=lambda node: (node.id in way, self._left(node)))
        self.chosen.append(self.at.id)
        return self.at

    def _left(self, node: Node) -> int:
        """Return the visits that the node will still get."""
        return self.known[node.id].visits - node.visits

    @contextmanager
    def iteration(self, number: int) -> Iterator[_Again]:
        """Open an iteration."""
        yield self

    def counts(self) -> Mapping[str, int]:
        """Return no counts."""
        return {}

    def sample(self, path: Sequence[Step], n: int) -> list[Reply]:
        """Return the turns that were drawn at the current node: the next new children, then known ones again."""
        parent, drawn, number = self.known[self.at.id], list[Node](), len(self._copied())
        while len(drawn) < n and (node := self.known.get(number)) and node.parent is parent:
            drawn.append(node)
            number += 1
        below = {node.id for node in path_nodes(self.known[number])} if number in self.known else set()
        spare = {c.id: c.samples for c in parent.children if c.id < number}
        for child in self.at.children:
            spare[child.id] -= child.samples
        for child in drawn:
            spare[child.id] -= 1
        while drawn and len(drawn) < n or not drawn and any(spare.values()) and len(drawn) < n:
            again = max(spare, key=lambda i: (spare[i] > 0, not self.known[i].visits, i in below, spare[i]))
            spare[again] -= 1
            drawn.append(self.known[again])
        return [Reply(node.reply, node.action, node.cut) for node in drawn]  # type: ignore[arg-type]

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """Return the recorded step of the chosen node."""
        return step_of(self.known[self.at.id])

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[tuple[Step, ...] | None]:
        """Return the steps of the next new leaves below the current node, then of leaves that were reached again."""
        start, number, ends = self.known[self.at.id], len(self._copied()), list[Node]()
        while (
            len(ends) < k and (leaf := self._new_leaf(start, number)) and self.chance.random() >= self.doubt
        ):
            ends.append(leaf)
            number = leaf.id + 1
        left = {
            node.id: _own_visits(node) - (_own_visits(self.mine[i]) if i in self.mine else 0)
            for i, node in self.known.items()
            if i < number and start in path_nodes(node)
        }
        for node in ends:
            left[node.id] -= 1
        while len(ends) < k and any(visits > 0 for visits in left.values()):
            spare = {i: visits for i, visits in left.items() if visits > 0}
            most = max(spare, key=spare.__getitem__)
            if self.seed:
                most = self.chance.choices(list(spare), list(spare.values()))[0]
            left[most] -= 1
            ends.append(self.known[most])
        ends.sort(key=lambda node: node.id)
        ways = [path_nodes(node)[len(path_nodes(start)) :] for node in ends]
        return [*(tuple(map(step_of, way)) for way in ways), *[None] * (k - len(ends))]

    def _new_leaf(self, start: Node, number: int) -> Node | None:
        """Return the end of the rollout whose first new node has that number; None if it is no rollout from `start`."""
        node = self.known.get(number)
        if node is None or start not in path_nodes(node):
            return None
        while not node.is_terminal:
            following = self.known.get(node.id + 1)
            if following is None or following.parent is not node:
                return None
            node = following
        return node if node.executed else None


class _Ties(Random):
    """The generator of an iteration: ties are broken as they were."""

    def __init__(self, again: _Again) -> None:
        super().__init__(0)
        self.choice = again.pick  # type: ignore[method-assign, assignment]


def _own_visits(node: Node) -> int:
    """Return the number of rewards that were backed up from the node itself."""
    return node.visits - sum(child.visits for child in node.children)
