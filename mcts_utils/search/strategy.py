"""How the trees of one folder are made: the strategy and its settings, as each tree and the manifest record them.

Two runs may write into one folder if they would make the same trees. It opens no session and asks no actor.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.rollouts.episode import derive_seed
from mcts_utils.search.baselines import SEARCH, STRATEGIES, Baseline
from mcts_utils.search.mcts import Rules, Simulator, run_search
from mcts_utils.search.tree import Tree, new_tree
from mcts_utils.storage.files import usable
from mcts_utils.storage.manifest import read_manifest
from mcts_utils.types import InputError, Task

# What two runs must share to write into one folder; ITERA may differ.
FIXED = ("model_name", "n_gen", "n_rollout", "max_depth", "uct_c", "temp", "max_token_length", "grounding")
SEARCH_ONLY = ("itera", "n_gen", "uct_c")  # a baseline has no use for these
# The defaults, where a tree has none.
RARE = ("actions", "action_format", "history_reasoning", "think_tokens")
RNG = -2  # the "rollout number" of an iteration's random choices


@dataclass(frozen=True)
class Strategy:
    """The strategy of a run and its settings."""

    settings: Settings
    server_kind: str  # the kind of server that the indices belong to
    weights: str  # of a local model (storage.manifest.fingerprint)
    baseline: Baseline | None = None  # instead of the search

    @property
    def name(self) -> str:
        """Return "mcts" or the baseline's name."""
        return self.baseline.strategy if self.baseline else SEARCH

    @property
    def unused(self) -> tuple[str, ...]:
        """Return the settings that have no effect."""
        return SEARCH_ONLY if self.baseline else ()

    def fixed(self) -> dict[str, Any]:
        """Return what all trees of the folder share; each of them records it."""
        how = {name: getattr(self.settings, name) for name in FIXED if name not in self.unused}
        how |= {name: value for name, value in self._rare().items() if value != getattr(Settings, name)}
        return {**how, "weights": self.weights, "goals": self.server_kind, "strategy": self.name}

    def _rare(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in RARE}

    def public(self) -> dict[str, Any]:
        """Return the settings for the manifest; a baseline's budget is the sum over all its tasks."""
        everything = {**self.settings.public(), **self.fixed()}
        kept = {name: value for name, value in everything.items() if name not in self.unused}
        if self.baseline is None:
            return kept
        budget = sum(self.baseline.budgets.values())
        return {**kept, "budget": budget, "budget_from": self.baseline.source}

    def new_tree(self, task: Task) -> Tree:
        """Return the task's tree before its first iteration: its root."""
        settings = {**self.fixed(), **self._limit(task.index)}
        return new_tree(task, settings, self.settings.prompt, self.settings.seed)

    def run(self, tree: Tree, simulator: Simulator) -> Iterator[int]:
        """Bring the tree to its end; yield the number of each completed iteration, when the tree can be saved."""
        s, index = self.settings, tree.task.index
        tree.settings.update(self._limit(index))
        rules = Rules(s.n_gen, s.n_rollout, s.max_depth, s.uct_c)

        def rng(iteration: int) -> Random:
            return Random(derive_seed(s.seed, index, iteration, RNG))

        if self.baseline is None:
            return run_search(tree, s.itera, rules, rng, simulator)
        return STRATEGIES[self.name](tree, self.baseline.budgets[index], rules, rng, simulator)

    def check(self, tree: Tree, path: Path) -> None:
        """Check that the tree of that file was begun in this way; raise InputError if not."""
        found = {
            "strategy": SEARCH,
            **{name: getattr(Settings, name) for name in RARE},
            **tree.settings,
            "prompt": tree.prompt,
            "seed": tree.seed,
        }
        wanted = {**self.fixed(), **self._rare(), "prompt": self.settings.prompt, "seed": self.settings.seed}
        if self.baseline:
            wanted |= self._limit(tree.task.index)
        if tree.stats["iterations"]:
            require_equal(path, found, wanted)

    def check_manifest(self, path: Path) -> bool:
        """Return True if there is a manifest; raise InputError if another strategy filled the folder."""
        if manifest := usable(path, lambda: read_manifest(path)):
            made = manifest.settings.get("strategy", SEARCH)
            require_equal(path, {"strategy": made}, {"strategy": self.name})
        return manifest is not None

    def _limit(self, index: int) -> dict[str, int]:
        """Return where a tree ends: its budget of completions, or its number of iterations."""
        if self.baseline:
            return {"budget": self.baseline.budgets.get(index, 0)}
        return {"itera": self.settings.itera}


def require_equal(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that the wanted settings were found; raise InputError naming those that differ."""
    changed = [name for name in wanted if found.get(name) != wanted[name]]
    if changed:
        what = ", ".join(f"{n.upper()}={found.get(n)!r}, now {wanted[n]!r}" for n in changed)
        raise InputError(f"{path} was made with {what}: use another --output_dir")
