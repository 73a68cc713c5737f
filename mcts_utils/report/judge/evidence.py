"""Verdicts and truths of one tree at a time, brought together: per step, per bad path, per node value. Pure.

What a verdict file or a model is, judge.py knows; what the numbers say, agreement.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.judge.agreement import VERDICTS, Item, JudgedPath, Scored, area, cuts, mean, score
from mcts_utils.report.judge.oracles import Truth, ValueRule, by_plan, by_value
from mcts_utils.revision.pairs import Trajectory, paths
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.tree import Tree, nodes

PLANNED = ("textcraft",)  # environments that have a planner
MIN_VISITS = (1, 2, 4)  # of the rules beside the one that was asked for
Verdicts = Mapping[int, str]  # node id -> one of agreement.VERDICTS


def succeeded(path: Trajectory) -> bool:
    """True for a good path: the full reward, 1."""
    return path.reward >= 1 - EPSILON


def on_good_paths(tree: Tree) -> set[int]:
    """Ids of the nodes that some path with reward 1 passes."""
    return {node for path in paths(tree) if succeeded(path) for node in path.nodes}


def items_of(tree: Tree, verdicts: Verdicts, truths: Mapping[int, Truth]) -> list[Item]:
    """The judged steps that the oracle can say something of."""
    found: list[Item] = []
    clean = {tree.root.id: True}
    for node in nodes(tree):
        if node.parent is None:
            continue
        before = truths.get(node.parent.id)
        clean[node.id] = clean[node.parent.id] and (before is None or before.label != "bad")
        truth = truths.get(node.id)
        if truth is not None and node.id in verdicts:
            found.append(Item(tree.task.id, verdicts[node.id], truth.label, truth.reason, clean[node.id]))
    return found


def judged_paths(tree: Tree, verdicts: Verdicts, truths: Mapping[int, Truth]) -> tuple[list[JudgedPath], int]:
    """The bad paths that were judged up to a bad verdict or to their end, and how many more were judged in part.

    A path is judged from its first step with a verdict on; a step without one ends what is known of it.
    """
    found: list[JudgedPath] = []
    unfinished = 0
    for path in paths(tree):
        first = next((i for i, node in enumerate(path.nodes) if node in verdicts), None)
        if succeeded(path) or first is None:
            continue
        last = first
        while last < len(path.nodes) and verdicts.get(path.nodes[last], "bad") != "bad":
            last += 1
        ended = last == len(path.nodes)
        if not ended and path.nodes[last] not in verdicts:
            unfinished += 1
            continue
        found.append(JudgedPath(tree.task.id, None if ended else last, _first_error(path, truths, first)))
    return found, unfinished


def _first_error(path: Trajectory, truths: Mapping[int, Truth], first: int) -> int | None:
    for index in range(first, len(path.nodes)):
        truth = truths.get(path.nodes[index])
        if truth is not None and truth.label == "bad":
            return index
    return None


def values_of(tree: Tree, verdicts: Verdicts, min_visits: int) -> tuple[list[Scored], list[Scored]]:
    """Of the judged nodes with enough visits: (Q, Q minus the parent's Q)."""
    own, gains = [], []
    for node in nodes(tree):
        if node.parent is not None and node.id in verdicts and node.visits >= max(1, min_visits):
            verdict = verdicts[node.id]
            own.append(Scored(tree.task.id, verdict, node.q))
            gains.append(Scored(tree.task.id, verdict, node.q - node.parent.q))
    return own, gains


def rules_beside(rule: ValueRule) -> list[ValueRule]:
    """The rules whose results are shown beside the one that was asked for."""
    return [
        ValueRule(kind, rule.threshold, visits) for kind in ("parent", "threshold") for visits in MIN_VISITS
    ]


class JudgeEvidence:
    """What all trees so far say. Holds a few words per judged step, and no tree."""

    def __init__(self, rule: ValueRule, seed: int = 0) -> None:
        self.rule, self.seed = rule, seed
        self.labels: dict[str, int] = dict.fromkeys(VERDICTS, 0)
        self.planned: list[Item] = []
        self.planned_paths: list[JudgedPath] = []
        self.valued: dict[ValueRule, list[Item]] = {r: [] for r in dict.fromkeys([rule, *rules_beside(rule)])}
        self.valued_paths: list[JudgedPath] = []
        self.own: list[Scored] = []
        self.gains: list[Scored] = []
        self.envs: set[str] = set()
        self.unfinished = 0

    def add(self, tree: Tree, verdicts: Verdicts) -> None:
        """Take a tree's verdicts in."""
        if not verdicts:
            return
        self.envs.add(tree.task.env)
        for verdict in verdicts.values():
            self.labels[verdict] += 1
        if tree.task.env in PLANNED:
            truths = by_plan(tree)
            self.planned += items_of(tree, verdicts, truths)
            self.planned_paths += judged_paths(tree, verdicts, truths)[0]
        for rule, found in self.valued.items():
            found += items_of(tree, verdicts, by_value(tree, rule))
        own, gains = values_of(tree, verdicts, self.rule.min_visits)
        self.own += own
        self.gains += gains
        judged, unfinished = judged_paths(tree, verdicts, by_value(tree, self.rule))
        self.valued_paths += judged
        self.unfinished += unfinished

    def summary(self) -> dict[str, Any]:
        """Plain JSON types; "planner" is None where no tree has one."""
        planned = bool(self.envs & set(PLANNED))
        return {
            "verdicts": {**self.labels, "in_all": sum(self.labels.values())},
            "environments": sorted(self.envs),
            "paths_judged_in_part": self.unfinished,
            "planner": self._against(self.planned, self.planned_paths) if planned else None,
            "value": {
                "rule": str(self.rule),
                **self._against(self.valued[self.rule], self.valued_paths),
                "q_by_verdict": self._by_verdict(self.own),
                "area_q": area(self.own, self.seed),
                "area_gain": area(self.gains, self.seed),
                "rules": [self._brief(rule) for rule in rules_beside(self.rule)],
            },
        }

    def _against(self, items: Sequence[Item], found: Sequence[JudgedPath]) -> dict[str, Any]:
        return {"steps": score(items, self.seed), "cuts": cuts(found, self.seed)}

    def _by_verdict(self, scored: Sequence[Scored]) -> dict[str, Any]:
        values: dict[str, list[tuple[str, float]]] = {verdict: [] for verdict in VERDICTS}
        for found in scored:
            values[found.verdict].append((found.group, found.value))
        return {verdict: mean(values[verdict], self.seed) for verdict in VERDICTS}

    def _brief(self, rule: ValueRule) -> dict[str, Any]:
        found = score(self.valued[rule], self.seed)
        kept = ("n", "truly_bad", "precision", "recall", "kappa")
        return {"rule": str(rule), **{name: found[name] for name in kept}}
