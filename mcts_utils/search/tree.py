"""The search tree: nodes, UCT, backup and paths. Pure.

It does not choose where to search (mcts.py) and knows no file format (tree_io.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mcts_utils.storage.formats.tree import LIVE_COUNTS, Stats
from mcts_utils.storage.formats.verdicts import KeptVerdict
from mcts_utils.types import Step, Task

STATS = tuple(name for name in Stats.__struct_fields__ if name not in LIVE_COUNTS)  # names of the counts


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
    executed: bool = False  # False: a candidate that was only sampled
    samples: int = 0  # times that this turn was drawn from the parent
    answers: tuple[str, ...] = ()  # to each of several tool calls
    cut: str = ""  # why `reply` is not all that was sampled, or ends early (replies.Cut)

    @property
    def q(self) -> float:
        """Return the mean reward of the rollouts through the node, in [0, 1]; 0 without any."""
        return self.value / self.visits if self.visits else 0.0

    @property
    def drawn(self) -> int:
        """Return the number of turns drawn at this node, as candidates or by rollouts."""
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
    # Of live revision (revision/live.py), where every child of the root begins an episode.
    # First node of an episode -> its opening, if another.
    openings: dict[int, str] = field(default_factory=dict)
    verdicts: dict[int, KeptVerdict] = field(default_factory=dict)  # by node

    def add(self, parent: Node, reply: str, action: str, cut: str = "") -> Node:
        """Add a child as a candidate, neither executed nor drawn yet, and return it."""
        self.stats["nodes"] += 1
        number, depth = self.stats["nodes"] - 1, parent.depth + 1
        node = Node(id=number, parent=parent, reply=reply, action=action, depth=depth, cut=cut)
        parent.children.append(node)
        return node


def new_tree(
    task: Task, settings: Mapping[str, Any] | None = None, prompt: str = "full", seed: int = 0
) -> Tree:
    """Return a tree that consists of its root."""
    root = Node(id=0, obs=task.opening, executed=True)
    tree = Tree(task, root, dict(settings or {}), prompt, seed)
    tree.stats["nodes"] = 1
    return tree


def backup(leaf: Node, reward: float) -> None:
    """Add one rollout's final reward to every node from the leaf to the root."""
    for node in path_nodes(leaf):
        node.visits += 1
        node.value += reward


def nodes(tree: Tree) -> Iterator[Node]:
    """Yield all nodes, parents before children, siblings in the order they were drawn."""
    stack = [tree.root]
    while stack:
        node = stack.pop()
        yield node
        stack += reversed(node.children)


def path_nodes(node: Node) -> list[Node]:
    """Return the nodes from the root to the node, both included."""
    path = [node]
    while path[-1].parent is not None:
        path.append(path[-1].parent)
    return path[::-1]


def path_steps(node: Node) -> list[Step]:
    """Return the steps from the root to the node, the node's own included; the root has none."""
    return [step_of(n) for n in path_nodes(node)[1:]]


def task_at(tree: Tree, node: Node) -> Task:
    """Return the task as the episode of this node opened."""
    first = path_nodes(node)[:2][-1]
    return replace(tree.task, opening=tree.openings.get(first.id, tree.task.opening))


def step_of(node: Node) -> Step:
    """Return the step of an executed node."""
    n = node
    return Step(n.reply, n.action, n.obs, n.reward, n.done, n.disaster, answers=n.answers, cut=n.cut)


def leaves(tree: Tree) -> list[Node]:
    """Return the executed terminal nodes, where the tree's trajectories end."""
    return [node for node in nodes(tree) if node.is_terminal and node.executed and node is not tree.root]
