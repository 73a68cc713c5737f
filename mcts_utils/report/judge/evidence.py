"""Match the verdicts on trees with the oracles' truths: per step, per bad path, per node value. Pure.

It takes one tree at a time. Files and models are left to report.py and sampling.py, statistics to agreement.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcts_utils.report.judge.agreement import (
    VERDICTS,
    JudgedPath,
    JudgedStep,
    ValuedStep,
    cut_scores,
    mean,
    roc_area,
    step_scores,
)
from mcts_utils.report.judge.oracles import Truth, ValueRule, planner_truths, value_truths
from mcts_utils.revision.pairs import Trajectory, paths
from mcts_utils.rollouts.steps import EPSILON
from mcts_utils.search.tree import Tree, nodes

PLANNED = ("textcraft",)  # environments that have a planner
MIN_VISITS = (1, 2, 4)  # of the other value rules that are reported
Verdicts = Mapping[int, str]  # node id -> one of agreement.VERDICTS


def succeeded(path: Trajectory) -> bool:
    """Return True for a good path: one with the full reward, 1."""
    return path.reward >= 1 - EPSILON


def on_good_paths(tree: Tree) -> set[int]:
    """Return the ids of the nodes on paths with reward 1."""
    return {node for path in paths(tree) if succeeded(path) for node in path.nodes}


def judged_steps(tree: Tree, verdicts: Verdicts, truths: Mapping[int, Truth]) -> list[JudgedStep]:
    """Return the steps that have both a verdict and a truth."""
    found: list[JudgedStep] = []
    clean = {tree.root.id: True}
    for node in nodes(tree):
        if node.parent is None:
            continue
        before = truths.get(node.parent.id)
        clean[node.id] = clean[node.parent.id] and (before is None or before.label != "bad")
        truth = truths.get(node.id)
        if truth is not None and node.id in verdicts:
            found.append(
                JudgedStep(tree.task.id, verdicts[node.id], truth.label, truth.reason, clean[node.id])
            )
    return found


def judged_paths(tree: Tree, verdicts: Verdicts, truths: Mapping[int, Truth]) -> tuple[list[JudgedPath], int]:
    """Return the bad paths judged up to a bad verdict or to their end, and the number of those judged in part.

    Judging starts at the first step with a verdict. A path is judged in part if a later step has none and no verdict
    before it is bad.
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
    """Return the index of the first bad step at or after index `first`, or None."""
    for index in range(first, len(path.nodes)):
        truth = truths.get(path.nodes[index])
        if truth is not None and truth.label == "bad":
            return index
    return None


def valued_steps(
    tree: Tree, verdicts: Verdicts, min_visits: int
) -> tuple[list[ValuedStep], list[ValuedStep]]:
    """Return, for the judged nodes with enough visits, the verdicts with Q, and with Q minus the parent's Q."""
    own, gains = [], []
    for node in nodes(tree):
        if node.parent is not None and node.id in verdicts and node.visits >= max(1, min_visits):
            verdict = verdicts[node.id]
            own.append(ValuedStep(tree.task.id, verdict, node.q))
            gains.append(ValuedStep(tree.task.id, verdict, node.q - node.parent.q))
    return own, gains


def other_rules(rule: ValueRule) -> list[ValueRule]:
    """Return the rules that are reported in addition to the requested one."""
    return [
        ValueRule(kind, rule.threshold, visits) for kind in ("parent", "threshold") for visits in MIN_VISITS
    ]


class JudgeEvidence:
    """Verdicts matched with truths, over all trees added so far. Keeps a few words per judged step, and no tree."""

    def __init__(self, rule: ValueRule, seed: int = 0) -> None:
        self.rule, self.seed = rule, seed
        self.labels: dict[str, int] = dict.fromkeys(VERDICTS, 0)
        self.planned: list[JudgedStep] = []
        self.planned_paths: list[JudgedPath] = []
        self.valued: dict[ValueRule, list[JudgedStep]] = {
            r: [] for r in dict.fromkeys([rule, *other_rules(rule)])
        }
        self.valued_paths: list[JudgedPath] = []
        self.own: list[ValuedStep] = []
        self.gains: list[ValuedStep] = []
        self.envs: set[str] = set()
        self.unfinished = 0

    def add(self, tree: Tree, verdicts: Verdicts) -> None:
        """Add the verdicts on one tree."""
        if not verdicts:
            return
        self.envs.add(tree.task.env)
        for verdict in verdicts.values():
            self.labels[verdict] += 1
        if tree.task.env in PLANNED:
            truths = planner_truths(tree)
            self.planned += judged_steps(tree, verdicts, truths)
            self.planned_paths += judged_paths(tree, verdicts, truths)[0]
        for rule, found in self.valued.items():
            found += judged_steps(tree, verdicts, value_truths(tree, rule))
        own, gains = valued_steps(tree, verdicts, self.rule.min_visits)
        self.own += own
        self.gains += gains
        judged, unfinished = judged_paths(tree, verdicts, value_truths(tree, self.rule))
        self.valued_paths += judged
        self.unfinished += unfinished

    def summary(self) -> dict[str, Any]:
        """Return all statistics in plain JSON types; "planner" is None if no tree's environment has one."""
        planned = bool(self.envs & set(PLANNED))
        return {
            "verdicts": {**self.labels, "in_all": sum(self.labels.values())},
            "environments": sorted(self.envs),
            "paths_judged_in_part": self.unfinished,
            "planner": self._statistics(self.planned, self.planned_paths) if planned else None,
            "value": {
                "rule": str(self.rule),
                **self._statistics(self.valued[self.rule], self.valued_paths),
                "q_by_verdict": self._by_verdict(self.own),
                "area_q": roc_area(self.own, self.seed),
                "area_gain": roc_area(self.gains, self.seed),
                "rules": [self._brief(rule) for rule in other_rules(self.rule)],
            },
        }

    def _statistics(self, items: Sequence[JudgedStep], found: Sequence[JudgedPath]) -> dict[str, Any]:
        return {"steps": step_scores(items, self.seed), "cuts": cut_scores(found, self.seed)}

    def _by_verdict(self, scored: Sequence[ValuedStep]) -> dict[str, Any]:
        values: dict[str, list[tuple[str, float]]] = {verdict: [] for verdict in VERDICTS}
        for found in scored:
            values[found.verdict].append((found.group, found.value))
        return {verdict: mean(values[verdict], self.seed) for verdict in VERDICTS}

    def _brief(self, rule: ValueRule) -> dict[str, Any]:
        found = step_scores(self.valued[rule], self.seed)
        kept = ("n", "truly_bad", "precision", "recall", "kappa")
        return {"rule": str(rule), **{name: found[name] for name in kept}}
