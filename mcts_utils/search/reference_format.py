"""Trees of the public reference: nested nodes, each with its whole conversation. For reading only. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from mcts_utils.rollouts.steps import reward_of
from mcts_utils.search.tree import Node, Tree, new_tree, nodes
from mcts_utils.types import InputError, Task

PERCENT = 100  # ScienceWorld's full score
MOST_VISITS = 10**9


def from_reference_dict(data: Mapping[str, Any], env: str = "", index: int = -1) -> Tree:
    """Return a reference tree as ours, for reading; a search cannot resume it.

    ScienceWorld's scores of 0..100 become 0..1. A leaf is a terminal node without children: the reference also marks
    inner nodes terminal when all their children are. `done` does not tell an end from the reference's depth limit.

    Args:
        data: its root, with the conversation in `state`.
        env, index: name the task, which the format does not.

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
            node.visits, node.value = _bounded(row, "visits"), _bounded(row, "value")
            for child_row in row["children"]:
                stack.append((_reference_child(tree, node, child_row), child_row))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"not a reference tree: {error!r}") from error
    most = max(node.reward for node in nodes(tree))
    # Where the environment's name is not known, large scores tell.
    if env == "sciworld" or most > 1:
        most /= PERCENT
        for node in nodes(tree):
            node.reward /= PERCENT
            node.value /= PERCENT
    if not most <= 1:
        raise InputError(f"not a reference tree: an env_score is above the full score, {PERCENT}")
    return tree


def _bounded(row: Mapping[str, Any], name: str) -> Any:
    """Return a number of a node; raise ValueError if it cannot be a count of visits or a sum of rewards."""
    if isinstance(row[name], bool) or not 0 <= row[name] <= MOST_VISITS * PERCENT:
        raise ValueError(f"{name} is {row[name]}")
    return row[name]


def _reference_child(tree: Tree, parent: Node, row: Mapping[str, Any]) -> Node:
    reply, action, seen = row["llm_response"], row["action"], row["obs"]
    if not all(isinstance(text, str) for text in (reply, action, seen)):
        raise TypeError("llm_response, action and obs must be texts")
    child = tree.add(parent, reply, action)
    child.obs = seen
    child.disaster = bool(row["disaster"])
    score = float(row["env_score"])
    if not abs(score) <= MOST_VISITS:
        raise ValueError(f"env_score is {score}")
    child.reward = reward_of(max(0.0, score), child.disaster)
    child.is_terminal = child.done = bool(row["is_terminal"]) and not row["children"]
    child.executed, child.samples = True, 1
    return child


def _reference_opening(state: Any) -> str:
    """Return the last user turn of the root's conversation."""
    turns = [m["content"] for m in state or () if m.get("role") == "user"]
    return turns[-1] if turns else ""
