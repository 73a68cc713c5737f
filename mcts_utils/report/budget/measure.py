"""Cost and yield of the trees of one folder, by task: calls, solved action sequences, pairs by Eq. 4.

It reads finished trees of stage 1, made by any strategy. It compares nothing (__main__.py does).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mcts_utils.evaluation.metrics.scores import is_success
from mcts_utils.revision.pairs import PairRule, candidate_pairs, paths, useful_steps
from mcts_utils.search.baselines import SEARCH
from mcts_utils.search.tree import Tree
from mcts_utils.search.tree_io import finished_tree
from mcts_utils.storage.layout import tree_files
from mcts_utils.types import InputError

COSTS = ("calls", "completions", "prompt_tokens", "completion_tokens", "env_steps", "rollouts")
SAME_SETTINGS = ("model_name", "weights", "temp", "max_depth", "max_token_length", "grounding", "goals")


@dataclass(frozen=True)
class Outcome:
    """Cost and yield of one tree."""

    costs: Mapping[str, int]  # name in COSTS -> count
    best: float  # reward of the best path, in [0, 1]; 0 without paths
    # Of each distinct solved action sequence, in steps without refused ones and looks.
    lengths: tuple[int, ...]
    pairs: int  # of distinct action sequences that satisfy Eq. 4 and fork before the bad one ends

    @property
    def solved(self) -> float:
        """Return 1 if a path has the full reward, else 0."""
        return float(is_success(self.best))

    @property
    def solved_paths(self) -> float:
        """Return the number of distinct action sequences that solve the task."""
        return float(len(self.lengths))


@dataclass(frozen=True)
class StrategyTrees:
    """The trees of one strategy."""

    path: str
    strategy: str
    settings: Mapping[str, Any]  # those that should be the same for all strategies
    outcomes: Mapping[str, Outcome]  # task -> its tree's outcome


def tree_outcome(tree: Tree, rule: PairRule) -> Outcome:
    """Return the cost and yield of one tree."""
    found = paths(tree)
    solved = {path.actions: path for path in found if is_success(path.reward)}
    good = [path for path in found if rule.good(path.reward)]
    pairs, _ = candidate_pairs(good, found, rule, tree.task.env, Random(0))
    return Outcome(
        {name: tree.stats[name] for name in COSTS},
        max((path.reward for path in found), default=0.0),
        tuple(useful_steps(path, tree.task.env) for path in solved.values()),
        len({(pair.good.actions, pair.bad.actions) for pair in pairs}),
    )


def read_folder(path: str, rule: PairRule) -> StrategyTrees:
    """Read the trees of one folder; raise InputError unless all are finished, of one strategy and its settings."""
    outcomes: dict[str, Outcome] = {}
    first: dict[str, Any] | None = None
    for file in tree_files(path, "DIR").values():
        tree = finished_tree(file)
        settings = {
            "strategy": tree.settings.get("strategy", SEARCH),
            **{name: tree.settings.get(name) for name in SAME_SETTINGS},
            "prompt": tree.prompt,
            "seed": tree.seed,
        }
        first = settings if first is None else first
        if changed := next((name for name in settings if settings[name] != first[name]), None):
            raise InputError(f"{file} has {changed.upper()}={settings[changed]!r}, not {first[changed]!r}")
        outcomes[f"{tree.task.env} {tree.task.index} {tree.task.id}"] = tree_outcome(tree, rule)
    assert first is not None
    return StrategyTrees(path, first.pop("strategy"), first, outcomes)


def check_same_tasks(folders: Sequence[StrategyTrees]) -> None:
    """Check that all folders have the same tasks; raise InputError naming the first that differs."""
    wanted = folders[0].outcomes.keys()
    for folder in folders[1:]:
        if odd := wanted ^ folder.outcomes.keys():
            raise InputError(
                f"{folder.path} and {folders[0].path} differ in {len(odd)} tasks, such as {sorted(odd)[0]}"
            )
