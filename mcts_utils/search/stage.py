"""Stage 1 over many tasks: search what is missing, save each tree after every iteration, then the manifest.

It resumes (a finished tree is never searched again, an interrupted one loses at most its current iteration) and records
failures as data. It chooses no tasks and knows no strategy: mcts_collection.py and recipe.py do.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from tqdm import tqdm

from mcts_utils.config import Settings
from mcts_utils.envs.contamination import HeldOut, HeldOutTask
from mcts_utils.envs.session_pool import SessionPool, SingleSessionPool
from mcts_utils.executors import WorkerLost, ignore, run_jobs
from mcts_utils.rollouts.counters import Counters
from mcts_utils.search.baselines import SEARCH, Baseline
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.search.strategy import Strategy
from mcts_utils.search.tree import STATS, Tree, leaves
from mcts_utils.search.tree_io import FORMAT, tree_from_dict, tree_to_dict
from mcts_utils.storage.files import read_json, write_json
from mcts_utils.storage.layout import tree_path
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.types import Actor, Environment, InputError, Stopped, Task, one_line

HOPELESS = 3  # failures without one finished tree: the server or the endpoint is at fault, not the tasks
OUR_HEAD = f'{{"format":"{FORMAT}"'.encode()  # how our files begin
Facts = dict[str, float]  # what a finished tree adds to the totals


class SearchStage:
    """One model's trees of one task; their folder is a function of both names."""

    def __init__(
        self,
        settings: Settings,
        indices: Sequence[int],
        output_dir: str | Path,
        task_set: str = "",
        held_out: HeldOut | None = None,
        weights: str | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        """`task_set`: the kind of server that the indices belong to (envs.server_about). `held_out`: never searched.

        `weights`: what storage.fingerprint says of MODEL_DIR, where that is known. `baseline`: instead of the search.
        """
        self.settings, self.indices = settings, list(indices)
        self._held_out = held_out or HeldOut()
        self._left_out: set[int] = set()  # indices that turned out to be test tasks
        self._root = output_dir
        self.manifest = self.path(0).with_name("manifest.json")
        self.meter = Counters()
        self.stop = Event()
        self.task_set = task_set
        self.usage: dict[str, Any] = {}  # of this run
        weights = fingerprint(settings.model_dir) if weights is None else weights
        self.strategy = Strategy(settings, task_set, weights, baseline)
        self._facts: dict[int, Facts] = {}  # of finished trees

    @classmethod
    def from_folder(
        cls,
        settings: Settings,
        task_set: str,
        held_out: HeldOut,
        weights: str,
        baseline: Baseline | None,
        folder: Path,
    ) -> SearchStage:
        """Return the stage of a worker process, which searches single trees in a folder of its own."""
        return cls(settings, (), folder / "out", task_set, held_out, weights, baseline)

    def path(self, index: int) -> Path:
        """The file of one tree."""
        return tree_path(self._root, self.settings.task, self.settings.model_name, index)

    @property
    def folders(self) -> Mapping[str, Path]:
        """See cluster.Stage."""
        return {"out": Path(self._root)}

    def input_files(self, job: int) -> list[Path]:
        """See cluster.Stage: an interrupted tree."""
        return [self.path(job)]

    def remote_factory(self) -> Callable[[Path], SearchStage]:
        """See cluster.Stage."""
        weights, baseline = self.strategy.weights, self.strategy.baseline
        return partial(
            SearchStage.from_folder, self.settings, self.task_set, self._held_out, weights, baseline
        )

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
        failed = 0
        if todo:
            with closing(make_environment()) as env:
                env.reset(todo[0])  # an unusable server is told at once, before a model is loaded
            bar = partial(tqdm, total=len(self.indices), initial=len(self._facts), desc="search", unit="tree")
            workers = self.settings.workers
            with run_jobs(self, todo, workers, make_actor, make_environment, bar, self._show) as (
                results,
                _,
            ):
                failed = self._settle(results, len(todo))
        return self._conclude(bool(todo), failed, self.usage, time.monotonic() - began)

    @contextmanager
    def job_runner(
        self,
        make_actor: Callable[[], Actor] | None,
        make_environment: Callable[[], Environment],
        saved: Callable[[Path], None] = ignore,
    ) -> Iterator[Callable[[int], Facts]]:
        """See cluster.Stage: the search of one tree."""
        assert make_actor is not None
        with closing(SessionPool(make_environment)) as pool:
            actor = make_actor()
            try:
                # Closed in reverse: first the searches end, then the threads of their rollouts.
                with ThreadPoolExecutor(rollout_threads(self.settings), "rollout") as threads:
                    yield lambda index: self._search(index, actor, pool, threads, saved)
            finally:
                self.usage = {**actor.stats(), **self._executed()}
                actor.close()

    def _executed(self) -> dict[str, int]:
        """Environment steps of this run; those on the way back to a node depend on the threads' timing."""
        counts = self.meter.counts()
        return {name: counts.get(name, 0) for name in ("env_steps", "replayed_steps")}

    def _survey(self) -> list[int]:
        """The indices to search. Trees that are finished are counted.

        Raises:
            InputError: naming a file that is not ours, or was made with other settings.
        """
        todo = []
        self.strategy.check_manifest(self.manifest)
        for index in self.indices:
            path = self.path(index)
            tree = self._saved(index)
            if tree is None and path.exists():
                print(f"{path}: truncated; it is searched again", file=sys.stderr)
            if tree is not None and self._is_held_out(tree.task):
                continue
            if tree is not None and tree.status == "done":
                self._facts[index] = facts(tree)
                continue
            todo.append(index)
        return todo

    def _saved(self, index: int) -> Tree | None:
        """The tree of a file; None where there is none, or half of one."""
        path = self.path(index)
        if not path.exists():
            return None
        try:
            tree = tree_from_dict(read_json(path))
        except (InputError, AttributeError) as error:
            if isinstance(error.__cause__, ValueError) and is_cut_off(path):
                return None
            hint = "it is in the way, remove it or use another --output_dir"
            raise InputError(f"{path} is no tree of this program ({error}): {hint}") from error
        self.strategy.check(tree, path)
        return tree

    def _is_held_out(self, task: Task) -> bool:
        """True for a test task, which is then named and left out."""
        try:
            self._held_out.check(task)
        except HeldOutTask as error:
            self._leave_out(task.index, error)
            return True
        return False

    def _leave_out(self, index: int, error: HeldOutTask) -> None:
        print(f"{self.path(index)}: {error}, left out; --allow_test overrides", file=sys.stderr)
        self._left_out.add(index)

    def _settle(self, results: Iterable[tuple[int, Any]], wanted: int) -> int:
        """Take the results as they come; the number of trees that failed."""
        worked = failed = 0
        for index, result in results:
            if isinstance(result, HeldOutTask):
                self._leave_out(index, result)
            elif isinstance(result, Exception):
                failed += 1
                if isinstance(result, WorkerLost):  # nobody else could write it down
                    tree = self._resumed(index)
                    self._write_failure(index, tree_to_dict(tree) if tree else None, result)
                if not worked and failed >= min(HOPELESS, wanted):
                    raise InputError(f"{failed} trees failed and none worked; the last: {one_line(result)}")
            else:
                worked += 1
                self._facts[index] = result
        return failed

    def _search(
        self,
        index: int,
        actor: Actor,
        pool: SessionPool,
        threads: ThreadPoolExecutor,
        saved: Callable[[Path], None],
    ) -> Facts:
        """One tree, from where it stands to its end; a failure is written down with its last whole iteration.

        Raises:
            HeldOutTask: it is a test task's: nothing is written.
        """
        path = self.path(index)
        whole: dict[str, Any] | None = None  # as of the last whole iteration
        try:
            with sessions_of_a_tree(pool) as sessions:
                # A tree in a session of its own ends with it: the goal would be another one now.
                tree = self._resumed(index) if sessions.shared else None
                if tree is None:
                    tree = self._plant(index, sessions)
                    self._held_out.check(tree.task)
                else:
                    whole = tree_to_dict(tree)
                for _ in self._iterations(tree, actor, sessions, threads):
                    whole = tree_to_dict(tree)
                    write_json(path, whole)
                    saved(path)
            tree.status, tree.error = "done", ""
            write_json(path, tree_to_dict(tree))
            saved(path)
            return facts(tree)
        except HeldOutTask:
            raise
        except Exception as error:
            if self.stop.is_set():
                raise  # what breaks while everything is being stopped is no failure of the task
            self._write_failure(index, whole, error)
            saved(path)
            raise

    def _resumed(self, index: int) -> Tree | None:
        """The tree that an earlier run or another worker has begun."""
        tree = self._saved(index)
        return tree if tree is not None and tree.stats["iterations"] else None

    def _write_failure(self, index: int, whole: dict[str, Any] | None, error: Exception) -> None:
        whole = whole or tree_to_dict(self.strategy.new_tree(Task(self.settings.task, index, "", "")))
        write_json(self.path(index), {**whole, "status": "failed", "error": one_line(error)})

    def _iterations(self, tree: Tree, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor) -> Any:
        s = self.settings
        simulator = TaskSimulator(tree.task, s, actor, pool, threads, self.meter, self.stop.is_set)
        simulator.preload(tree)
        return self.strategy.run(tree, simulator)

    def _plant(self, index: int, pool: SessionPool) -> Tree:
        if self.stop.is_set():
            raise Stopped
        with pool.session() as env:
            tree = self.strategy.new_tree(env.reset(index))
        tree.stats["env_resets"] += 1
        return tree

    def _show(self, bar: Any) -> None:
        """What the progress bar shows beside the trees."""
        counts = self.meter.counts()
        steps = counts.get("env_steps", 0) / max(bar.format_dict["elapsed"], 1e-9)
        bar.set_postfix({"steps/s": f"{steps:.1f}", "in flight": counts.get("in_flight", 0)}, refresh=False)

    def _conclude(self, ran: bool, failed: int, usage: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The manifest, written unless this run found everything done and one is there."""
        total = {
            name: sum(one[name] for one in self._facts.values()) for name in (*STATS, "leaves", "reward_sum")
        }
        tokens = {
            name: total.pop(name) for name in ("calls", "completions", "prompt_tokens", "completion_tokens")
        }
        reward_sum = total.pop("reward_sum")
        counts = {
            "trees": len(self._facts),
            "failed": failed,
            "held_out": len(self._left_out),
            **total,
            "selections_uct_share": _ratio(total["selections_uct"], total["selections"]),
            "mean_leaf_reward": _ratio(reward_sum, total["leaves"]),
        }
        if ran or not self.manifest.exists():
            files = [self.path(index) for index in self.indices if index not in self._left_out]
            settings = self.strategy.public()
            usage_too = {**tokens, "this_run": usage}
            write_manifest(self.manifest, "search", settings, [], files, counts, usage_too, seconds)
        return {**counts, "strategy": self.strategy.name, "tokens": tokens, "seconds": seconds}


@contextmanager
def sessions_of_a_tree(pool: SessionPool) -> Iterator[SessionPool]:
    """The pool, or one session of it where another would show other goals."""
    env = pool.take()
    try:
        alone = env.session_bound_tasks
    except BaseException:
        pool.drop(env)
        raise
    if not alone:
        pool.give(env)
        yield pool
        return
    with closing(SingleSessionPool(pool, env)) as lone:
        yield lone


def facts(tree: Tree) -> Facts:
    """The tree's counts, its leaves and the sum of their rewards."""
    ends = leaves(tree)
    return {**tree.stats, "leaves": len(ends), "reward_sum": sum(leaf.reward for leaf in ends)}


def describe(totals: Mapping[str, Any], folder: Path) -> str:
    """The run in one line."""
    if totals["strategy"] == SEARCH:
        what = f"UCT decided {totals['selections_uct_share'] or 0:.0%} of {totals.get('selections', 0)} selections"
    else:
        spent = totals["tokens"]["completions"]
        what = f"{totals['strategy']}: {spent} completions, {totals.get('rollouts', 0)} rollouts"
    return (
        f"{totals['trees']} trees ({totals['failed']} failed), {totals.get('nodes', 0)} nodes, {what}, "
        f"mean leaf reward {totals['mean_leaf_reward'] or 0:.3f}, {totals['seconds']:.1f} s: {folder}"
    )


def is_cut_off(path: Path) -> bool:
    """True if an unreadable file is the beginning of one of ours, or empty, as a crash of the machine leaves it."""
    head = path.read_bytes()[: len(OUR_HEAD)].strip(b"\0 \n")
    return OUR_HEAD.startswith(head)


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole else None


def rollout_threads(settings: Settings) -> int:
    """Rollouts at once: enough to fill the endpoint, and few, so that waiting ones begin in the trees' order.

    Then all trees are about equally far at any time, and no tree is left over to end alone.
    """
    wanted = settings.workers * max(1, settings.n_rollout)
    return min(wanted, 2 * settings.in_flight)
