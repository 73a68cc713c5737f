"""What the trees of one folder cost and hold, task by task: calls, solved action sequences, pairs by Eq. 4.

It reads finished trees of stage 1, whatever strategy made them, and compares nothing: budget.py does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from mcts_utils.evaluation.metrics import is_success
from mcts_utils.revision.pairs import PairRule, candidates, paths, useful_steps
from mcts_utils.search.baselines import SEARCH
from mcts_utils.search.tree import Tree
from mcts_utils.search.tree_io import finished_tree
from mcts_utils.storage.layout import tree_files
from mcts_utils.types import InputError

COSTS = ("calls", "completions", "prompt_tokens", "completion_tokens", "env_steps", "rollouts")
ALIKE = ("model_name", "weights", "temp", "max_depth", "max_token_length", "grounding", "goals")


@dataclass(frozen=True)
class Outcome:
    """One tree: what it cost and what it holds."""

    costs: Mapping[str, int]  # by COSTS
    best: float  # reward of the best path, in [0, 1]; 0 without paths
    lengths: tuple[int, ...]  # steps, but refused ones and looks, of each distinct solved action sequence
    pairs: int  # of distinct action sequences, that satisfy Eq. 4 and fork before the bad one's end

    @property
    def solved(self) -> float:
        """1 if a path has the full reward."""
        return float(is_success(self.best))

    @property
    def solved_paths(self) -> float:
        """Distinct action sequences that solve the task."""
        return float(len(self.lengths))


@dataclass(frozen=True)
class Folder:
    """One strategy's trees."""

    path: str
    strategy: str
    how: Mapping[str, Any]  # settings that should be those of the others
    outcomes: Mapping[str, Outcome]  # by task


def outcome(tree: Tree, rule: PairRule) -> Outcome:
    """What one tree cost and holds."""
    found = paths(tree)
    solved = {path.actions: path for path in found if is_success(path.reward)}
    good = [path for path in found if rule.good(path.reward)]
    pairs, _ = candidates(good, found, rule, tree.task.env, Random(0))
    return Outcome(
        {name: tree.stats[name] for name in COSTS},
        max((path.reward for path in found), default=0.0),
        tuple(useful_steps(path, tree.task.env) for path in solved.values()),
        len({(pair.good.actions, pair.bad.actions) for pair in pairs}),
    )


def read_folder(path: str, rule: PairRule) -> Folder:
    """The trees of one folder.

    Raises:
        InputError: none there, one that is not finished, or trees of several strategies or settings.
    """
    outcomes: dict[str, Outcome] = {}
    first: dict[str, Any] | None = None
    for file in tree_files(path, "DIR").values():
        tree = finished_tree(file)
        named = {name: tree.settings.get(name) for name in ALIKE}
        how = {
            "strategy": tree.settings.get("strategy", SEARCH),
            **named,
            "prompt": tree.prompt,
            "seed": tree.seed,
        }
        first = how if first is None else first
        if changed := [name for name in how if how[name] != first[name]]:
            raise InputError(
                f"{file} has {changed[0].upper()}={how[changed[0]]!r}, not {first[changed[0]]!r}"
            )
        outcomes[f"{tree.task.env} {tree.task.index} {tree.task.id}"] = outcome(tree, rule)
    assert first is not None
    return Folder(path, first.pop("strategy"), first, outcomes)


def same_tasks(folders: Sequence[Folder]) -> None:
    """Raises InputError naming the first folder with other tasks than the first one."""
    wanted = folders[0].outcomes.keys()
    for folder in folders[1:]:
        if other := wanted ^ folder.outcomes.keys():
            raise InputError(
                f"{folder.path} and {folders[0].path} differ in {len(other)} tasks, such as {sorted(other)[0]}"
            )
