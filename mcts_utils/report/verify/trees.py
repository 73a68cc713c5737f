"""Check a tree: its own counts, its task, the settings of its manifest, and the kept verdicts on its nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from mcts_utils.envs import names, task_id
from mcts_utils.prompts import judge_messages
from mcts_utils.revision.verdict_cache import question_sha256
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.strategy import FIXED, RARE
from mcts_utils.search.tree import Node, Tree, nodes, path_steps, task_at
from mcts_utils.storage.formats.manifest import Manifest
from mcts_utils.storage.formats.verdicts import VerdictFile

SAME = (*FIXED, "weights", "goals", "strategy", *RARE)


def tree_faults(tree: Tree, index: int, settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with a tree.

    Args:
        index: in the name of its file.
        settings: of the manifest that lists it; {} without one.
    """
    task = tree.task
    if task.index != index:
        yield f"it is the tree of index {task.index}"
    if task.env in names() and task.opening:
        if task.id != (found := task_id(task.env, task.opening, task.index)):
            yield f"its task is named {task.id}, its opening is of {found}"
    shared = [name for name in SAME if name in settings and name in tree.settings]
    known = {**tree.settings, "prompt": tree.prompt, "seed": tree.seed}
    for name in (*shared, *({"prompt", "seed"} & set(settings))):
        if known[name] != settings[name]:
            yield f"{name} is {known[name]!r}, its manifest says {settings[name]!r}"
    every = list(nodes(tree))
    if tree.stats["nodes"] != len(every):
        yield f"it has {len(every)} nodes and counts {tree.stats['nodes']}"
    for node in every:
        yield from _node_faults(node)


def _node_faults(node: Node) -> Iterator[str]:
    if node.parent and node.depth != node.parent.depth + 1:
        yield f"node {node.id}: depth {node.depth} below depth {node.parent.depth}"
    if not 0 <= node.value <= node.visits + EPSILON:
        yield f"node {node.id}: value {node.value:g} of {node.visits} visits"
    visits, value = (sum(getattr(child, name) for child in node.children) for name in ("visits", "value"))
    if visits > node.visits or value > node.value + EPSILON * visits:
        yield f"node {node.id}: value {node.value:g} of {node.visits} visits, its children have {value:g} of {visits}"
    if not 0 <= node.reward <= 1:
        yield f"node {node.id}: reward {node.reward:g}"
    if node.visits and not node.executed:
        yield f"node {node.id}: {node.visits} visits, and it was not executed"


def total_faults(found: Mapping[str, float], manifest: Manifest) -> Iterator[str]:
    """Yield the counts of a search's manifest that are not the sums over its trees."""
    for name, count in {"trees": manifest.counts.get("trees"), **manifest.counts}.items():
        if name in found and count != found[name]:
            yield f"counts {name} {count}, its trees have {found[name]}"


def verdict_faults(tree: Tree, file: VerdictFile, seen: Counter[str]) -> Iterator[str]:
    """Yield the kept verdicts that answer no question about this tree."""
    by_id = {str(node.id): node for node in nodes(tree)}
    for name, kept in file.verdicts.items():
        seen["verdicts"] += 1
        node = by_id.get(name)
        if node is None or node.parent is None:
            yield f"verdict on node {name}, which the tree does not have"
            continue
        steps = path_steps(node)
        question = judge_messages(task_at(tree, node), steps[:-1], steps[-1], file.prompt)
        if question_sha256(question) != kept.question:
            yield f"verdict on node {name}: it answers another question than the tree's"
