"""Stage 1 over many tasks: search what is missing, save each tree after every iteration, then the manifest.

It resumes (a finished tree is never searched again, an interrupted one loses at most its current iteration) and records
failures as data. It chooses no tasks and knows no search: mcts_collection.py and search.py do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

from tqdm import tqdm

from mcts_utils.config import Settings
from mcts_utils.explorer import TaskSimulator
from mcts_utils.rollout import Meter, SessionPool, Stopped, derive_seed
from mcts_utils.scheduler import run_tasks
from mcts_utils.search import Rules, search
from mcts_utils.storage import fingerprint, one_line, read_json, tree_path, write_json, write_manifest
from mcts_utils.tree import FORMAT, STATS, Tree, leaves, new_tree, tree_from_dict, tree_to_dict
from mcts_utils.types import Actor, Environment, InputError, Task

HOPELESS = 3  # failures without one finished tree: the server or the endpoint is at fault, not the tasks
OUR_HEAD = f'{{"format":"{FORMAT}"'.encode()  # how our files begin
# What two runs must share to write into one folder; ITERA may differ.
FIXED = ("model_name", "n_gen", "n_rollout", "max_depth", "uct_c", "temp", "max_token_length")
Facts = dict[str, float]  # what a finished tree adds to the totals
RNG = -2  # the "rollout number" of an iteration's random choices


class Collection:
    """One model's trees of one task; their folder is a function of both names."""

    def __init__(self, settings: Settings, indices: Sequence[int], output_dir: str | Path) -> None:
        self.settings, self.indices = settings, list(indices)
        self._root = output_dir
        self.manifest = self.path(0).with_name("manifest.json")
        self.meter = Meter()
        self._stop = Event()
        self._how = {name: getattr(settings, name) for name in FIXED}
        self._how["weights"] = fingerprint(settings.model_dir)
        self._facts: dict[int, Facts] = {}  # of finished trees
        self._begun: dict[int, Tree] = {}  # trees to go on with

    def path(self, index: int) -> Path:
        """The file of one tree."""
        return tree_path(self._root, self.settings.task, self.settings.model_name, index)

    def run(
        self, make_actor: Callable[[], Actor], make_environment: Callable[[], Environment]
    ) -> dict[str, Any]:
        """Search what is not finished and return the totals, which are then in the manifest.

        Raises:
            InputError: a file in the way, or nothing works at all.
            EnvError, ActorError: the server or the model cannot be used.
            KeyboardInterrupt: after the running trees stopped; the next run goes on from there.
        """
        began = time.monotonic()
        todo = self._survey()
        failed, usage = 0, dict[str, Any]()
        if todo:
            with closing(SessionPool(make_environment)) as pool:
                with pool.session() as env:
                    env.reset(todo[0])  # an unusable server is told at once, before a model is loaded
                actor = make_actor()
                try:
                    failed = self._search_all(todo, actor, pool)
                finally:
                    usage = actor.stats() if hasattr(actor, "stats") else {}
                    if hasattr(actor, "close"):
                        actor.close()
        return self._conclude(bool(todo), failed, usage, time.monotonic() - began)

    def _survey(self) -> list[int]:
        """The indices to search. Trees that are finished are counted, begun ones are kept to go on with.

        Raises:
            InputError: naming a file that is not ours, or was made with other settings.
        """
        todo = []
        for index in self.indices:
            tree = self._saved(self.path(index))
            if tree is not None and tree.status == "done":
                self._facts[index] = facts(tree)
                continue
            if tree is not None and tree.stats["iterations"]:
                self._begun[index] = tree
            todo.append(index)
        return todo

    def _saved(self, path: Path) -> Tree | None:
        """The tree of a file; None where there is none, or half of one."""
        if not path.exists():
            return None
        try:
            tree = tree_from_dict(read_json(path))
        except (InputError, AttributeError) as error:
            if isinstance(error.__cause__, ValueError) and is_cut_off(path):
                print(f"{path}: truncated; it is searched again", file=sys.stderr)
                return None
            hint = "it is in the way, remove it or use another --output_dir"
            raise InputError(f"{path} is no tree of this program ({error}): {hint}") from error
        found = {**tree.settings, "prompt": tree.prompt, "seed": tree.seed}
        wanted = {**self._how, "prompt": self.settings.prompt, "seed": self.settings.seed}
        changed = [name for name in wanted if found.get(name) != wanted[name]]
        if changed and tree.stats["iterations"]:
            what = ", ".join(f"{n.upper()}={found.get(n)!r}, now {wanted[n]!r}" for n in changed)
            raise InputError(f"{path} was made with {what}: use another --output_dir")
        return tree

    def _search_all(self, todo: Sequence[int], actor: Actor, pool: SessionPool) -> int:
        """Search the trees, several at once; the number of those that failed."""
        workers, worked, failed = self.settings.workers, 0, 0
        bar = tqdm(total=len(self.indices), initial=len(self._facts), desc="search", unit="tree")
        # Closed in reverse: first the searches end, then the threads of their rollouts.
        with bar, ThreadPoolExecutor(workers * max(1, self.settings.n_rollout), "rollout") as threads:

            def work(index: int) -> Facts:
                return self._search(index, actor, pool, threads, bar)

            with closing(run_tasks(todo, work, workers, bar, self._stop)) as results:
                for index, result in results:
                    if isinstance(result, Exception):
                        failed += 1
                        if not worked and failed >= min(HOPELESS, len(todo)):
                            raise InputError(
                                f"{failed} trees failed and none worked; the last: {one_line(result)}"
                            )
                    else:
                        worked += 1
                        self._facts[index] = result
        return failed

    def _search(
        self, index: int, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor, bar: Any
    ) -> Facts:
        """One tree, from where it stands to its end; a failure is written down with its last whole iteration."""
        saved: dict[str, Any] | None = None
        try:
            tree = self._begun.pop(index, None)
            saved = tree_to_dict(tree) if tree is not None else None
            tree = tree or self._plant(index, pool)
            for _ in self._iterations(tree, actor, pool, threads):
                saved = tree_to_dict(tree)
                write_json(self.path(index), saved)
                bar.set_postfix(self._pace(bar.format_dict["elapsed"]), refresh=False)
            tree.status, tree.error = "done", ""
            write_json(self.path(index), tree_to_dict(tree))
            return facts(tree)
        except Exception as error:
            if self._stop.is_set():
                raise  # what breaks while everything is being stopped is no failure of the task
            if saved is None:
                saved = tree_to_dict(self._tree(Task(self.settings.task, index, "", "")))
            write_json(self.path(index), {**saved, "status": "failed", "error": one_line(error)})
            raise

    def _iterations(self, tree: Tree, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor) -> Any:
        s = self.settings
        tree.settings["itera"] = s.itera
        simulator = TaskSimulator(tree.task, s, actor, pool, threads, self.meter, self._stop.is_set)
        return search(
            tree,
            s.itera,
            Rules(s.n_gen, s.n_rollout, s.max_depth, s.uct_c),
            lambda iteration: Random(derive_seed(s.seed, tree.task.index, iteration, RNG)),
            simulator,
        )

    def _plant(self, index: int, pool: SessionPool) -> Tree:
        if self._stop.is_set():
            raise Stopped
        with pool.session() as env:
            tree = self._tree(env.reset(index))
        tree.stats["env_resets"] += 1
        return tree

    def _tree(self, task: Task) -> Tree:
        settings = {**self._how, "itera": self.settings.itera}
        return new_tree(task, settings, self.settings.prompt, self.settings.seed)

    def _pace(self, seconds: float) -> dict[str, Any]:
        """What the progress bar shows beside the trees."""
        counts = self.meter.counts()
        steps = counts.get("env_steps", 0) / max(seconds, 1e-9)
        return {"steps/s": f"{steps:.1f}", "in flight": counts.get("in_flight", 0)}

    def _conclude(self, ran: bool, failed: int, usage: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The manifest, written unless this run found everything done and one is there."""
        total = {
            name: sum(one[name] for one in self._facts.values()) for name in (*STATS, "leaves", "reward_sum")
        }
        tokens = {name: total.pop(name) for name in ("calls", "prompt_tokens", "completion_tokens")}
        reward_sum = total.pop("reward_sum")
        counts = {
            "trees": len(self._facts),
            "failed": failed,
            **total,
            "selections_uct_share": _ratio(total["selections_uct"], total["selections"]),
            "mean_leaf_reward": _ratio(reward_sum, total["leaves"]),
        }
        if ran or not self.manifest.exists():
            files = [self.path(index) for index in self.indices]
            settings = {**self.settings.public(), **self._how}
            usage_too = {**tokens, "this_run": usage}
            write_manifest(self.manifest, "search", settings, [], files, counts, usage_too, seconds)
        return {**counts, "tokens": tokens, "seconds": seconds}


def facts(tree: Tree) -> Facts:
    """The tree's counts, its leaves and the sum of their rewards."""
    ends = leaves(tree)
    return {**tree.stats, "leaves": len(ends), "reward_sum": sum(leaf.reward for leaf in ends)}


def describe(totals: Mapping[str, Any], folder: Path) -> str:
    """The run in one line."""
    return (
        f"{totals['trees']} trees ({totals['failed']} failed), {totals.get('nodes', 0)} nodes, "
        f"UCT decided {totals['selections_uct_share'] or 0:.0%} of {totals.get('selections', 0)} selections, "
        f"mean leaf reward {totals['mean_leaf_reward'] or 0:.3f}, {totals['seconds']:.1f} s: {folder}"
    )


def is_cut_off(path: Path) -> bool:
    """True if an unreadable file is the beginning of one of ours, or empty, as a crash of the machine leaves it."""
    head = path.read_bytes()[: len(OUR_HEAD)].strip(b"\0 \n")
    return OUR_HEAD.startswith(head)


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None
