"""Trees to and from their files: this program's (storage/formats/tree.py) and the public reference's.

Where files lie is in storage/layout.py; which trees a run resumes is in tree_store.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import UNSET

from mcts_utils.config import Settings
from mcts_utils.envs.contamination import HeldOut, HeldOutTask
from mcts_utils.search.reference_format import from_reference_dict
from mcts_utils.search.tree import STATS, Node, Tree, nodes
from mcts_utils.storage.files import read_json
from mcts_utils.storage.formats.base import TaskFields, plain
from mcts_utils.storage.formats.tree import (
    FLAGS,
    LIVE_COUNTS,
    OPTIONAL,
    NodeColumns,
    Stats,
    TreeFile,
    is_tree,
    parse_tree,
)
from mcts_utils.types import InputError

IF_ANY = ("truncated", "empty", "played_on")  # counts that a file has where they are not 0
ATTRIBUTES = tuple(name for name in NodeColumns.__struct_fields__ if name != "parent")  # of a Node


class BadTree(InputError):
    """A tree file that cannot be used; the others can."""


def finished_tree(path: Path) -> Tree:
    """Read a tree that stage 1 has finished; raise InputError naming the file and what is wrong."""
    data = read_json(path)
    try:
        tree = tree_from_dict(data)
    except InputError as error:
        raise InputError(f"{path} is no tree of this program ({error})") from error
    if tree.status != "done":
        raise InputError(f"{path} is {tree.status}: run its collection again to finish it")
    return tree


def read_tree(path: Path, env: str, index: int) -> Tree:
    """Read the tree of a file, ours or the reference's.

    Raises:
        BadTree: saying what is wrong, without the file's name.
    """
    try:
        tree = load_tree(read_json(path), env, index)
    except InputError as error:
        raise BadTree(str(error).removeprefix(f"{path}: ")) from error
    if tree.task.env != env:
        raise BadTree(f"TASK is {env!r}, the tree is of {tree.task.env!r}")
    return tree


def check_tree(tree: Tree, settings: Settings, server_kind: str, held_out: HeldOut | None) -> None:
    """Check that a tree may become records here.

    Args:
        server_kind: of the server; empty: any.
        held_out: test tasks; None: they may be used.

    Raises:
        BadTree: its indices are another kind of server's, its replies were read otherwise, or it is a test task's.
    """
    for name in ("actions", "action_format"):
        made, now = tree.settings.get(name, getattr(Settings, name)), getattr(settings, name)
        if made != now:
            raise BadTree(f"searched with {name.upper()}={made}, now {now}")
    kind = tree.settings.get("goals")
    if kind and server_kind and kind != server_kind:
        raise BadTree(f"searched on a server of kind {kind}, this one is {server_kind}")
    try:
        if held_out:
            held_out.check(tree.task)
    except HeldOutTask as error:
        raise BadTree(f"{error}; --allow_test overrides") from error


def load_tree(data: Any, env: str = "", index: int = -1) -> Tree:
    """Return the tree of a parsed file, in our format or the reference's.

    Args:
        env, index: name the task of a reference tree.

    Raises:
        InputError: saying in one line what is wrong, without the file's name.
    """
    if is_tree(data):
        return tree_from_dict(data)
    if isinstance(data, Mapping) and "children" in data and "llm_response" in data:
        return from_reference_dict(data, env, index)
    raise InputError("neither a tree of this program nor a reference tree")


def tree_file(tree: Tree) -> TreeFile:
    """Return the tree's file. Nodes are columns of one length and name their parent."""
    return TreeFile(
        status=tree.status,  # type: ignore[arg-type]
        error=tree.error,
        task=TaskFields.of(tree.task),
        prompt=tree.prompt,
        seed=tree.seed,
        settings=dict(tree.settings),
        stats=Stats(**{name: n for name, n in tree.stats.items() if n or name not in IF_ANY}),
        nodes=_columns(tree),
        openings={str(node): text for node, text in tree.openings.items()} or UNSET,
        verdicts={str(node): verdict for node, verdict in tree.verdicts.items()} or UNSET,
    )


def tree_to_dict(tree: Tree) -> dict[str, Any]:
    """Return the tree's file as plain JSON types."""
    return plain(tree_file(tree))


def _columns(tree: Tree) -> NodeColumns:
    """Return one list for every field, all in the nodes' order; flags are 0 and 1."""
    rows = list(nodes(tree))
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in ATTRIBUTES}
    columns |= {name: [int(flag) for flag in columns[name]] for name in FLAGS}
    columns["obs"][0] = ""  # the root's is the task's opening
    for name in [name for name in OPTIONAL if not any(columns[name])]:
        del columns[name]
    return NodeColumns(parent=[row.parent.id if row.parent else None for row in rows], **columns)


def tree_from_dict(data: Any) -> Tree:
    """Return the tree of a parsed file of this program, in version 1 or 2.

    Raises:
        InputError: naming the field or node that is wrong.
    """
    file = parse_tree(data)
    by_id = _linked_nodes(file.nodes)
    root = next(iter(by_id.values()))
    root.obs = file.task.opening
    stats = plain(file.stats)
    # Older files have no count of completions. Each became a node, but for rollouts that raised Diverged.
    stats.setdefault("completions", sum(node.samples for node in by_id.values()))
    how = (dict(file.settings), file.prompt, file.seed)
    counts = {name: stats.get(name, 0) for name in STATS}
    counts |= {name: stats[name] for name in LIVE_COUNTS if name in stats}
    tree = Tree(file.task.task(), root, *how, counts, file.status, file.error)
    tree.openings = {int(node): opening for node, opening in (file.openings or {}).items()}
    tree.verdicts = {int(node): verdict for node, verdict in (file.verdicts or {}).items()}
    return tree


def _linked_nodes(columns: NodeColumns) -> dict[int, Node]:
    """Return the nodes by id, the root first, with parents and children linked."""
    by_id: dict[int, Node] = {}
    lists = [getattr(columns, name) for name in ATTRIBUTES]
    lists = [
        [OPTIONAL[name]] * len(columns.id) if values is UNSET else values
        for name, values in zip(ATTRIBUTES, lists, strict=True)
    ]
    lists = [
        list(map(bool, values)) if name in FLAGS else values
        for name, values in zip(ATTRIBUTES, lists, strict=True)
    ]
    for parent_id, *values in zip(columns.parent, *lists, strict=True):
        node = Node(**dict(zip(ATTRIBUTES, values, strict=True)))
        node.parent, node.answers = by_id.get(parent_id), tuple(node.answers)
        if node.id in by_id or (parent_id not in by_id if by_id else parent_id is not None):
            raise InputError(f"node {node.id}: it must be new, and the first node alone is the root")
        by_id[node.id] = node
        if node.parent is not None:
            node.parent.children.append(node)
    return by_id
