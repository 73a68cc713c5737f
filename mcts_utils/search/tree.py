"""The search tree: nodes, UCT, backup, paths, and its dict codec (ours, and the reference's for reading). Pure.

It decides nothing about when to search where: that is search.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.types import Step, Task

STATS = (
    "iterations",  # finished ones
    "selections",  # choices among two or more children
    "selections_uct",  # of these, choices where every child had visits, so that UCT decided
    "rollouts",
    "env_steps",
    "env_resets",
    "calls",  # requests to the actor
    "completions",  # answers to them: a request for n candidates has n
    "prompt_tokens",
    "completion_tokens",
    "invalid",  # sampled turns without an `Action:` line
    "nodes",
)


@dataclass(eq=False, slots=True)
class Node:
    """One step: the turn that led here and the observation that answered it. The root stands for the opening."""

    id: int
    parent: Node | None = field(default=None, repr=False)
    children: list[Node] = field(default_factory=list, repr=False)
    reply: str = ""
    action: str = ""
    obs: str = ""  # empty until executed
    reward: float = 0.0  # score of the episode so far, in [0, 1]
    depth: int = 0  # steps from the root
    is_terminal: bool = False  # a leaf: done, disaster, MAX_DEPTH or a full context
    done: bool = False  # the environment said so
    disaster: bool = False  # the score went negative; reward is 0
    visits: int = 0  # rewards backed up through this node
    value: float = 0.0  # their sum, so in [0, visits]
    executed: bool = False  # False: a candidate that was sampled only
    samples: int = 0  # times that this turn was drawn from the parent

    @property
    def q(self) -> float:
        """Mean reward of the rollouts through the node, in [0, 1]; 0 without any."""
        return self.value / self.visits if self.visits else 0.0

    @property
    def drawn(self) -> int:
        """Turns drawn at this node, as candidates or by rollouts."""
        return sum(child.samples for child in self.children)


@dataclass(eq=False, slots=True)
class Tree:
    """One task's search."""

    task: Task
    root: Node
    settings: dict[str, Any] = field(default_factory=dict)  # what the search ran with; no secrets
    prompt: str = "full"
    seed: int = 0
    stats: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATS, 0))
    status: str = "partial"  # or "done", "failed"
    error: str = ""  # why it failed

    def add(self, parent: Node, reply: str, action: str) -> Node:
        """A new child that is a candidate: not executed, drawn no times yet."""
        self.stats["nodes"] += 1
        node = Node(
            id=self.stats["nodes"] - 1, parent=parent, reply=reply, action=action, depth=parent.depth + 1
        )
        parent.children.append(node)
        return node


def new_tree(
    task: Task, settings: Mapping[str, Any] | None = None, prompt: str = "full", seed: int = 0
) -> Tree:
    """A tree of its root alone."""
    root = Node(id=0, obs=task.opening, executed=True)
    tree = Tree(task, root, dict(settings or {}), prompt, seed)
    tree.stats["nodes"] = 1
    return tree


def uct(node: Node, c: float) -> float:
    """UCT(s) = Q(s) + c * sqrt(ln N_parent / N(s)) (Section 2.2); infinite for a node without visits."""
    if node.visits == 0 or node.parent is None:
        return math.inf
    return node.q + c * math.sqrt(math.log(max(1, node.parent.visits)) / node.visits)


def backup(leaf: Node, reward: float) -> None:
    """Add one rollout's final reward to every node from the leaf to the root."""
    for node in path_nodes(leaf):
        node.visits += 1
        node.value += reward


def nodes(tree: Tree) -> Iterator[Node]:
    """All nodes, parents before children, siblings in the order they were drawn."""
    stack = [tree.root]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def path_nodes(node: Node) -> list[Node]:
    """Root to node."""
    path = [node]
    while path[-1].parent is not None:
        path.append(path[-1].parent)
    return path[::-1]


def path_steps(node: Node) -> list[Step]:
    """The steps from the root to the node, both ends included (the root itself is no step)."""
    return [step_of(n) for n in path_nodes(node)[1:]]


def step_of(node: Node) -> Step:
    """The step of an executed node."""
    return Step(node.reply, node.action, node.obs, node.reward, node.done, node.disaster)


def leaves(tree: Tree) -> list[Node]:
    """Executed terminal nodes: the ends of the tree's trajectories."""
    return [node for node in nodes(tree) if node.is_terminal and node.executed and node is not tree.root]
