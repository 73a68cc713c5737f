"""The search tree: nodes, UCT, backup, paths, and its dict codec (ours, and the reference's for reading). Pure.

It decides nothing about when to search where: that is search.py.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.types import InputError, Step, Task

FORMAT = "agent-r-tree"
VERSION = 2  # 1 had an object for every node
STATUSES = ("partial", "done", "failed")
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


def load_tree(data: Any, env: str = "", index: int = -1) -> Tree:
    """A tree in our shape or in the reference's; `env` and `index` name the task of a reference tree.

    Raises:
        InputError: one line on what is wrong, without the file's name.
    """
    if isinstance(data, Mapping) and data.get("format") == FORMAT:
        return tree_from_dict(data)
    if isinstance(data, Mapping) and "children" in data and "llm_response" in data:
        return from_reference_dict(data, env, index)
    raise InputError("neither a tree of this program nor a reference tree")


def tree_to_dict(tree: Tree) -> dict[str, Any]:
    """Plain JSON types. Nodes are columns of one length and name their parent, so each text is there once."""
    task = tree.task
    return {
        "format": FORMAT,
        "version": VERSION,
        "status": tree.status,
        "error": tree.error,
        "task": {"env": task.env, "index": task.index, "id": task.id, "opening": task.opening},
        "prompt": tree.prompt,
        "seed": tree.seed,
        "settings": dict(tree.settings),
        "stats": dict(tree.stats),
        "nodes": _columns(tree),
    }


FLAGS = ("is_terminal", "done", "disaster", "executed")
FIELDS = {  # name in the file -> attribute of Node
    "id": "id",
    "depth": "depth",
    "llm_response": "reply",
    "action": "action",
    "obs": "obs",
    "env_score": "reward",
    "samples": "samples",
    "visits": "visits",
    "value": "value",
    **{name: name for name in FLAGS},
}


def _columns(tree: Tree) -> dict[str, list[Any]]:
    """One list for every field, all of them in the nodes' order: field names are there once, flags as 0 and 1."""
    rows = list(nodes(tree))
    columns: dict[str, list[Any]] = {"parent": [row.parent.id if row.parent else None for row in rows]}
    for name, attribute in FIELDS.items():
        values = [getattr(row, attribute) for row in rows]
        columns[name] = [int(value) for value in values] if name in FLAGS else values
    columns["obs"][0] = ""  # the root's is the task's opening
    return columns


def tree_from_dict(data: Mapping[str, Any]) -> Tree:
    """The inverse of `tree_to_dict`; it also reads version 1.

    Raises:
        InputError: naming the field or node that is wrong.
    """
    if data.get("format") != FORMAT or data.get("version") not in (1, VERSION):
        raise InputError(f"not a version {VERSION} {FORMAT}: {data.get('format')!r} {data.get('version')!r}")
    if data.get("status") not in STATUSES:
        raise InputError(f"status must be one of {', '.join(STATUSES)}: {data.get('status')!r}")
    try:
        task = Task(**data["task"])
        by_id: dict[int, Node] = {}
        for row in _rows(data["nodes"]):
            parent = None if row["parent"] is None else by_id[row["parent"]]
            if row["id"] in by_id or (parent is None) != (not by_id):
                raise InputError(f"node {row['id']}: it must be new, and the first node alone is the root")
            node = _node_from_dict(row, parent)
            by_id[node.id] = node
            if parent is not None:
                parent.children.append(node)
        root = next(iter(by_id.values()))
        root.obs = task.opening
        # Older files do not count them. Each became a node, but those of rollouts that were lost (travel.Diverged).
        answers = sum(node.samples for node in by_id.values())
        stats = {**dict.fromkeys(STATS, 0), "completions": answers, **data["stats"]}
        return Tree(
            task,
            root,
            dict(data["settings"]),
            data["prompt"],
            data["seed"],
            stats,
            data["status"],
            data["error"],
        )
    except (KeyError, TypeError, ValueError, StopIteration) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"a field or node of the tree is missing or wrong: {error!r}") from error


def _rows(nodes: Any) -> Iterator[Mapping[str, Any]]:
    """A node's fields by name, from columns or from version 1's objects."""
    if isinstance(nodes, list):
        yield from nodes
        return
    names = ("parent", *FIELDS)
    for values in zip(*(nodes[name] for name in names), strict=True):
        yield dict(zip(names, values, strict=True))


def _node_from_dict(row: Mapping[str, Any], parent: Node | None) -> Node:
    return Node(
        id=row["id"],
        parent=parent,
        reply=row["llm_response"],
        action=row["action"],
        obs=row["obs"],
        reward=row["env_score"],
        depth=row["depth"],
        is_terminal=bool(row["is_terminal"]),
        done=bool(row["done"]),
        disaster=bool(row["disaster"]),
        visits=row["visits"],
        value=row["value"],
        executed=bool(row["executed"]),
        samples=row["samples"],
    )


def from_reference_dict(data: Mapping[str, Any], env: str = "", index: int = -1) -> Tree:
    """A reference tree: nested nodes, each with its whole conversation in `state`. For reading, never to go on with.

    Scores of 0..100 (ScienceWorld) become 0..1. A leaf is a terminal node without children: the reference also marks
    inner nodes terminal when all their children are. What its depth limit ended is not told from `done`.

    Raises:
        InputError: if a field is missing.
    """
    try:
        opening = _reference_opening(data.get("state"))
        digest = hashlib.sha256(opening.encode("utf-8", "replace")).hexdigest()[:16]
        tree = new_tree(Task(env, index, f"{env}:{digest}", opening))
        tree.status = "done"
        stack = [(tree.root, data)]
        while stack:
            node, row = stack.pop()
            node.visits, node.value = row["visits"], row["value"]
            for child_row in row["children"]:
                stack.append((_reference_child(tree, node, child_row), child_row))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"not a reference tree: {error!r}") from error
    if max(node.reward for node in nodes(tree)) > 1:
        for node in nodes(tree):
            node.reward /= 100
            node.value /= 100
    return tree


def _reference_child(tree: Tree, parent: Node, row: Mapping[str, Any]) -> Node:
    child = tree.add(parent, row["llm_response"], row["action"])
    child.obs = row["obs"]
    child.disaster = bool(row["disaster"])
    child.reward = 0.0 if child.disaster else max(0.0, float(row["env_score"]))
    child.is_terminal = child.done = bool(row["is_terminal"]) and not row["children"]
    child.executed, child.samples = True, 1
    return child


def _reference_opening(state: Any) -> str:
    """The last user turn of the root's conversation."""
    turns = [m["content"] for m in state or () if m.get("role") == "user"]
    return turns[-1] if turns else ""
