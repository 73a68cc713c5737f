"""The size of trees in the public reference's format: nested nodes, each with its whole conversation."""

from __future__ import annotations

import json
from typing import Any

from mcts_utils.prompts import acting_messages
from mcts_utils.search.tree import Node, Tree, path_steps


def reference_bytes(tree: Tree) -> int:
    """Return the bytes of the tree in the reference's format, as json.dump writes it.

    It holds only executed nodes: the reference executes every candidate, so it has no others. Its `recent_actions` are
    left empty, which favours the reference.
    """
    return len(json.dumps(_nested(tree, tree.root)).encode())


def _nested(tree: Tree, node: Node) -> dict[str, Any]:
    steps = path_steps(node)
    turns = [{"role": m.role, "content": m.content} for m in acting_messages(tree.task, steps, tree.prompt)]
    return {
        "visits": node.visits,
        "value": node.value,
        "prior": 1.0,
        "puct_value": 0,
        "obs": node.obs,
        "llm_response": node.reply or "ROOT",
        "depth": node.depth,
        "is_terminal": node.is_terminal,
        "recent_actions": [],
        "action": node.action,
        "env_score": node.reward,
        "disaster": node.disaster,
        "state": turns,
        "children": [_nested(tree, child) for child in node.children if child.executed],
    }
