"""Pack a tree for the page: nodes as columns, marks, equal states, the search's course, the judge's verdicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mcts_utils.envs.specs import names
from mcts_utils.prompts import system_prompt
from mcts_utils.report.view.replay import course
from mcts_utils.report.view.steps import guessed_env, idle, refused, title_of
from mcts_utils.revision.pairs import Trajectory, paths
from mcts_utils.search.tree import Node, Tree, nodes, step_of
from mcts_utils.search.tree_io import load_tree
from mcts_utils.storage.files import read_as, read_json
from mcts_utils.storage.formats.verdicts import VerdictFile
from mcts_utils.storage.layout import existing, verdicts_path
from mcts_utils.types import InputError

MARKS = {
    name: 1 << i for i, name in enumerate(("refused", "disaster", "duplicate", "unexecuted", "end", "idle"))
}
SEEN = ("model_name", "strategy", "itera", "n_gen", "n_rollout", "max_depth", "uct_c", "temp", "budget")


@dataclass
class Packed:
    """A tree of the page, and what its records will be linked to."""

    key: str
    tree: Tree
    paths: dict[int, Trajectory]  # by leaf
    verdicts: dict[int, tuple[str, str]]  # node -> (label, reason)
    links: dict[int, list[tuple[int, str]]] = field(default_factory=dict)  # node -> (record, part it is in)
    dropped: list[dict[str, Any]] = field(default_factory=list)  # pairs that became no record

    def line(self) -> dict[str, Any]:
        """Return the tree's line in the list."""
        rewards = [path.reward for path in self.paths.values()]
        return {
            "key": self.key,
            "env": self.tree.task.env,
            "title": title_of(self.tree.task),
            "status": self.tree.status,
            "nodes": self.tree.stats["nodes"],
            "rewards": [round(reward, 3) for reward in rewards],
            "records": len({record for found in self.links.values() for record, _ in found}),
            "dropped": len(self.dropped),
        }

    def content(self) -> dict[str, Any]:
        """Return all that the page draws of the tree."""
        tree, rows = self.tree, sorted(nodes(self.tree), key=lambda node: node.id)
        place = {node.id: at for at, node in enumerate(rows)}
        states, firsts = _states(tree)
        known = tree.task.env in names()
        return {
            "task": {
                "env": tree.task.env,
                "index": tree.task.index,
                "id": tree.task.id,
                "opening": tree.task.opening,
            },
            "system": system_prompt(tree.task.env, tree.prompt, tree.settings.get("actions", "any"))
            if known
            else "",
            "status": tree.status,
            "error": tree.error,
            "settings": {name: tree.settings[name] for name in SEEN if name in tree.settings}
            | {"seed": tree.seed},
            "stats": tree.stats,
            "id": [node.id for node in rows],
            "parent": [place[node.parent.id] if node.parent else -1 for node in rows],
            "reply": _once([node.reply for node in rows]),
            "action": [_end_of(node) for node in rows],
            "cut": {node.id: node.cut for node in rows if node.cut},
            "obs": _once([node.obs if node.parent else "" for node in rows]),
            "reward": [round(node.reward, 4) for node in rows],
            "visits": [node.visits for node in rows],
            "value": [round(node.value, 4) for node in rows],
            "samples": [node.samples for node in rows],
            "marks": [_marks(tree, node, firsts) for node in rows],
            "state": [place[states[node.id]] for node in rows],
            "course": course(tree),
            "verdicts": self.verdicts,
            "links": self.links,
            "dropped": self.dropped,
        }


def tree_of(path: Path, index: int) -> Tree:
    """Return the tree of a file, ours or the reference's, which names no environment: the path or the texts do.

    Raises:
        InputError: naming the file and what is wrong with it.
    """
    env = next((part for part in reversed(path.parts[:-1]) if part in names()), "")
    try:
        data = read_json(path)
        tree = load_tree(data, env, index)
        return tree if tree.task.env else load_tree(data, guessed_env(tree.task.opening), index)
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error


def pack_tree(path: Path, index: int, key: str, records: list[Path]) -> Packed:
    """Read a tree with the verdicts on it in the folders of its records.

    Raises:
        InputError: as `tree_of`.
    """
    tree = tree_of(path, index)
    verdicts: dict[int, tuple[str, str]] = {}
    for folder in records:
        file = existing(verdicts_path(folder, index))
        if file.exists():
            kept = read_as(file, VerdictFile).verdicts
            verdicts |= {int(node): (found.label, found.reason) for node, found in kept.items()}
    return Packed(key, tree, {p.leaf: p for p in paths(tree)}, verdicts)


def _states(tree: Tree) -> tuple[dict[int, int], set[int]]:
    """Return node -> first node in the same state, and those first nodes.

    Refused actions and looks leave the state as it was; two nodes are in the same state if the same other actions,
    with the same answers, lead there.
    """
    states, known = {tree.root.id: tree.root.id}, dict[tuple[Any, ...], int]()
    for node in sorted(nodes(tree), key=lambda node: node.id):
        if node.parent is None:
            continue
        at = states[node.parent.id]
        if node.executed and not node.done and not node.disaster and idle(tree.task.env, step_of(node)):
            states[node.id] = at
        else:
            states[node.id] = known.setdefault((at, node.action, node.obs, node.executed), node.id)
    return states, set(known.values())


def _once(texts: list[str]) -> list[str | int]:
    """Return the texts, with the place of its first occurrence for one that came before."""
    first: dict[str, int] = {}
    return [text if first.setdefault(text, i) == i else first[text] for i, text in enumerate(texts)]


def _end_of(node: Node) -> str | int:
    """Return the action, or its length where it is the end of the reply."""
    return (
        len(node.action.encode("utf-16-le", "surrogatepass")) // 2
        if node.reply.endswith(node.action)
        else node.action
    )


def _marks(tree: Tree, node: Node, firsts: set[int]) -> int:
    """Return the sum of MARKS that hold for a node."""
    if node.parent is None:
        return 0
    step = step_of(node)
    still = node.executed and idle(tree.task.env, step)
    found = {
        "refused": node.executed and refused(tree.task.env, step),
        "disaster": node.disaster,
        "duplicate": node.executed and not still and node.id not in firsts,
        "unexecuted": not node.executed,
        "end": node.is_terminal and node.executed,
        "idle": still,
    }
    return sum(MARKS[name] for name, holds in found.items() if holds)
