"""Match the verdicts on trees with the oracles' truths: per step, per bad path, per node value. Pure.

It takes one tree at a time. Files and models are left to __main__.py and sampling.py, statistics to agreement.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
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
from mcts_utils.report.judge.oracles import RULES, Truth, ValueRule, planner_truths, value_truths
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
        before, truth = truths.get(node.parent.id), truths.get(node.id)
        ok = clean[node.id] = clean[node.parent.id] and (before is None or before.label != "bad")
        if truth is not None and node.id in verdicts:
            found.append(JudgedStep(tree.task.id, verdicts[node.id], truth.label, truth.reason, ok))
    return found


def judged_paths(tree: Tree, verdicts: Verdicts, truths: Mapping[int, Truth]) -> tuple[list[JudgedPath], int]:
    """Return the bad paths judged up to a bad verdict or to their end, and the number of those judged in part.

    Judging starts at the first step with a verdict. A path is judged in part if a later step has none and no verdict
    before it is bad.
    """
    found: list[JudgedPath] = []
    unfinished = 0
    for path in paths(tree):
        judged = [i for i, node in enumerate(path.nodes) if node in verdicts]
        if succeeded(path) or not judged:
            continue
        rest = range(judged[0], len(path.nodes))
        cut = next((i for i in rest if verdicts.get(path.nodes[i], "bad") == "bad"), None)
        if cut is not None and path.nodes[cut] not in verdicts:
            unfinished += 1
            continue
        bad = (i for i in rest if (truth := truths.get(path.nodes[i])) and truth.label == "bad")
        found.append(JudgedPath(tree.task.id, cut, next(bad, None)))
    return found, unfinished


class JudgeEvidence:
    """Verdicts matched with truths, over all trees added so far. Keeps a few words per judged step, and no tree."""

    def __init__(self, rule: ValueRule, seed: int = 0) -> None:
        self.rule, self.seed = rule, seed
        self.other_rules = [
            ValueRule(kind, rule.threshold, visits) for kind in RULES for visits in MIN_VISITS
        ]
        self.labels: Counter[str] = Counter()
        self.planned: list[JudgedStep] = []
        self.planned_paths: list[JudgedPath] = []
        self.valued: dict[ValueRule, list[JudgedStep]] = {one: [] for one in (rule, *self.other_rules)}
        self.valued_paths: list[JudgedPath] = []
        self.own: list[ValuedStep] = []  # by Q
        self.gains: list[ValuedStep] = []  # by Q minus the parent's
        self.envs: set[str] = set()
        self.unfinished = 0

    def add(self, tree: Tree, verdicts: Verdicts) -> None:
        """Add the verdicts on one tree."""
        if not verdicts:
            return
        self.envs.add(tree.task.env)
        self.labels.update(verdicts.values())
        if tree.task.env in PLANNED:
            truths = planner_truths(tree)
            self.planned += judged_steps(tree, verdicts, truths)
            self.planned_paths += judged_paths(tree, verdicts, truths)[0]
        for rule, found in self.valued.items():
            found += judged_steps(tree, verdicts, value_truths(tree, rule))
        judged, unfinished = judged_paths(tree, verdicts, value_truths(tree, self.rule))
        self.valued_paths += judged
        self.unfinished += unfinished
        for node in nodes(tree):
            if node.parent is not None and node.id in verdicts and node.visits >= self.rule.min_visits:
                self.own.append(ValuedStep(tree.task.id, verdicts[node.id], node.q))
                self.gains.append(ValuedStep(tree.task.id, verdicts[node.id], node.q - node.parent.q))

    def summary(self) -> dict[str, Any]:
        """Return all statistics in plain JSON types; "planner" is None if no tree's environment has one."""
        seed, planned = self.seed, bool(self.envs & set(PLANNED))
        labels = {verdict: self.labels[verdict] for verdict in VERDICTS}
        values = {v: [(one.group, one.value) for one in self.own if one.verdict == v] for v in VERDICTS}
        return {
            "verdicts": {**labels, "in_all": sum(labels.values())},
            "environments": sorted(self.envs),
            "paths_judged_in_part": self.unfinished,
            "planner": {
                "steps": step_scores(self.planned, seed),
                "cuts": cut_scores(self.planned_paths, seed),
            }
            if planned
            else None,
            "value": {
                "rule": str(self.rule),
                "steps": step_scores(self.valued[self.rule], seed),
                "cuts": cut_scores(self.valued_paths, seed),
                "q_by_verdict": {verdict: mean(found, seed) for verdict, found in values.items()},
                "area_q": roc_area(self.own, seed),
                "area_gain": roc_area(self.gains, seed),
                "rules": [self._brief(rule) for rule in self.other_rules],
            },
        }

    def _brief(self, rule: ValueRule) -> dict[str, Any]:
        found = step_scores(self.valued[rule], self.seed)
        kept = ("n", "truly_bad", "precision", "recall", "kappa")
        return {"rule": str(rule), **{name: found[name] for name in kept}}
