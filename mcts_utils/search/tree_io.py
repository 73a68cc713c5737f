"""The tree's file: our format, version 1 and 2, and reading of whatever holds a tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mcts_utils.search.reference_format import from_reference_dict
from mcts_utils.search.tree import STATS, Node, Tree, nodes
from mcts_utils.storage.files import read_json
from mcts_utils.types import InputError, Task


def finished_tree(path: Path) -> Tree:
    """A tree of stage 1 that is whole.

    Raises:
        InputError: naming the file and what is wrong.
    """
    data = read_json(path)
    try:
        tree = tree_from_dict(data)
    except (InputError, AttributeError) as error:
        raise InputError(f"{path} is no tree of this program ({error})") from error
    if tree.status != "done":
        raise InputError(f"{path} is {tree.status}: run its collection again to finish it")
    return tree


class BadTree(InputError):
    """A tree file that cannot be used; the others can."""


def read_tree(path: Path, env: str, index: int) -> Tree:
    """The tree of a file, ours or the reference's.

    Raises:
        BadTree: what is wrong, without the file's name.
    """
    try:
        tree = load_tree(read_json(path), env, index)
    except InputError as error:
        raise BadTree(str(error).removeprefix(f"{path}: ")) from error
    if tree.task.env != env:
        raise BadTree(f"TASK is {env!r}, the tree is of {tree.task.env!r}")
    return tree


FORMAT = "agent-r-tree"


VERSION = 2  # 1 had an object for every node


STATUSES = ("partial", "done", "failed")


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
