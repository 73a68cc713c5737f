"""Stage 1 over many tasks: search what is missing, save each tree after every iteration, then write the manifest.

It resumes (a finished tree is never searched again, an interrupted one goes on from its last iteration with what is in
its journal) and records failures as data. It chooses no tasks (mcts_collection.py) and no strategy (strategy.py).
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from mcts_utils.config import Settings
from mcts_utils.envs.contamination import HeldOut, HeldOutTask
from mcts_utils.envs.session_pool import SessionPool, session_limit
from mcts_utils.executors import MAX_FAILURES, FailureGuard, Saved, WorkerLost, ignore, run_jobs
from mcts_utils.executors.spending import Spending
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.recorded import RecordedActor, RecordedPool, anew_without_record
from mcts_utils.search.baselines import Baseline
from mcts_utils.search.env_sessions import sessions_of_a_tree
from mcts_utils.search.simulator import TaskSimulator, rollout_threads
from mcts_utils.search.strategy import Strategy
from mcts_utils.search.totals import TreeTotals, run_totals, tree_totals
from mcts_utils.search.tree import Tree
from mcts_utils.search.tree_io import tree_file
from mcts_utils.search.tree_store import TreeStore
from mcts_utils.storage.formats.tree import TreeFile
from mcts_utils.storage.journal import Journal, Journals
from mcts_utils.storage.manifest import fingerprint, write_manifest
from mcts_utils.terminal import Progress
from mcts_utils.types import Actor, MakeActor, MakeEnvironment, ServiceGone, Stopped, Task


class SearchStage:
    """The trees of one task and one model; their folder is a function of both names."""

    def __init__(
        self,
        settings: Settings,
        indices: Sequence[int],
        output_dir: str | Path,
        server_kind: str = "",
        held_out: HeldOut | None = None,
        weights: str | None = None,
        baseline: Baseline | None = None,
    ) -> None:
        """Prepare a run; nothing is read or asked yet, but for MODEL_DIR.

        Args:
            server_kind: the kind of server that the indices belong to (envs.server_about); empty for any.
            held_out: test tasks, which are never searched.
            weights: storage.manifest.fingerprint of MODEL_DIR, if that is known.
            baseline: what to follow instead of the search.
        """
        self.settings, self.indices = settings, list(indices)
        self._held_out = held_out or HeldOut()
        self._left_out: set[int] = set()  # indices that turned out to be test tasks
        self._output_dir = output_dir
        self.counters = Counters()
        self.stop = Event()
        self.server_kind = server_kind
        self.usage: dict[str, Any] = {}  # of this run
        self.models, self.spending = {"actor": settings}, Spending(settings.reply_tokens)
        weights = fingerprint(settings.model_dir, settings.chat_template) if weights is None else weights
        self.strategy = self._make_strategy(weights, baseline)
        self._store = TreeStore(output_dir, self.strategy)
        self.manifest = self.path(0).with_name("manifest.json")
        self._journals = Journals(self.manifest.parent)
        self.finished: Counter[str] = Counter()  # sums of the finished trees' totals
        self._has_manifest = False

    def _make_strategy(self, weights: str, baseline: Baseline | None) -> Strategy:
        return Strategy(self.settings, self.server_kind, weights, baseline)

    @classmethod
    def in_folder(
        cls, settings: Settings, how: tuple[Any, ...], journals: Journals, folder: Path
    ) -> SearchStage:
        """Return the stage of a worker process, which searches single trees in a folder of its own."""
        made = cls(settings, (), folder / "out", *how)
        made._journals = journals
        return made

    def path(self, index: int) -> Path:
        """Return the file of one tree."""
        return self._store.path(index)

    @property
    def folders(self) -> Mapping[str, Path]:
        return {"out": Path(self._output_dir)}

    def input_files(self, job: int) -> list[Path]:
        """Return the file of the tree, which an interrupted run may have begun."""
        return [self.path(job)]

    def remote_factory(self) -> Callable[[Path], SearchStage]:
        how = (self.server_kind, self._held_out, self.strategy.weights, self.strategy.baseline)
        return partial(type(self).in_folder, self.settings, how, self._journals)

    def run(self, make_actor: MakeActor, make_environment: MakeEnvironment) -> dict[str, Any]:
        """Search what is not finished and return the totals, which are then in the manifest.

        Raises:
            InputError: if a file is in the way, or nothing works at all.
            EnvError, ActorError: if the server or the model cannot be used.
            KeyboardInterrupt: after the running trees stopped; the next run resumes them.
        """
        began = time.monotonic()
        todo = self.unfinished()
        failed, failure = 0, ""
        with self._journals.running((), bool(todo)):
            for index in set(self.indices).difference(todo):
                self._journals.drop(self.path(index).stem)
            if todo:
                with closing(make_environment()) as env:
                    env.reset(todo[0])  # report an unusable server before a model is loaded
                done = self.finished["trees"]
                bar = partial(Progress, total=len(self.indices), initial=done, desc="search", unit="tree")
                workers = self.settings.workers
                run = run_jobs(self, todo, workers, make_actor, make_environment, bar, self._show)
                with run as (results, _):
                    failed, failure = self._collect(results, todo)
            ran = bool(todo) or self._journals.interrupted
            return self._conclude(ran, failed, time.monotonic() - began) | {"failure": failure}

    @contextmanager
    def job_runner(
        self, make_actor: MakeActor | None, make_environment: MakeEnvironment, saved: Saved = ignore
    ) -> Iterator[Callable[[int], TreeTotals]]:
        """Yield the function that searches one tree (executors.stage.Stage)."""
        assert make_actor is not None
        with closing(SessionPool(make_environment, session_limit(self.settings, self.server_kind))) as pool:
            actor = make_actor()
            try:
                # Closed in reverse: first the searches end, then the threads of their rollouts.
                with ThreadPoolExecutor(rollout_threads(self.settings), "rollout") as threads:
                    yield lambda index: anew_without_record(self._search, index, actor, pool, threads, saved)
            finally:
                self.usage = {**actor.stats(), **self._step_counts()}
                actor.close()

    def _step_counts(self) -> dict[str, int]:
        """Return this run's environment steps; the replayed ones depend on the threads' timing."""
        counts = self.counters.counts()
        return {name: counts.get(name, 0) for name in ("env_steps", "replayed_steps")}

    def unfinished(self) -> list[int]:
        """Return the indices to search, and note the totals of the finished trees.

        Raises:
            InputError: naming a file that is not ours, or was made with other settings.
        """
        todo = []
        self._has_manifest = self.strategy.check_manifest(self.manifest)
        for index in self.indices:
            path = self.path(index)
            tree = self._store.read(index)
            if tree is None and path.exists():
                print(f"{path}: truncated; it is searched again", file=sys.stderr)
            if tree is not None and self._is_held_out(tree.task):
                continue
            if tree is not None and tree.status == "done":
                self.finished.update(tree_totals(tree))
                continue
            todo.append(index)
        return todo

    def _is_held_out(self, task: Task) -> bool:
        """Return True for a test task, which is then reported and left out."""
        try:
            self._held_out.check(task)
        except HeldOutTask as error:
            self._leave_out(task.index, error)
            return True
        return False

    def _leave_out(self, index: int, error: HeldOutTask) -> None:
        print(f"{self.path(index)}: {error}, left out; --allow_test overrides", file=sys.stderr)
        self._left_out.add(index)

    def _collect(self, results: Iterable[tuple[int, Any]], todo: Sequence[int]) -> tuple[int, str]:
        """Note the results as they come; return the number of trees that failed, and the first one's error.

        Raises:
            InputError: if MAX_FAILURES trees failed in a row and none has completed an iteration, or if the server or
                the endpoint is gone.
        """
        guard = FailureGuard(self.finished["trees"], min(MAX_FAILURES, len(todo)))
        for index, result in results:
            if isinstance(result, HeldOutTask):
                self._leave_out(index, result)
            elif isinstance(result, Exception):
                if isinstance(result, WorkerLost):  # the worker could not record it
                    tree = self._store.read_begun(index)
                    self._store.write_failure(index, tree_file(tree) if tree else None, result)
                guard.require_success(index, "trees", result, lambda: any(map(self._store.read_begun, todo)))
            else:
                guard.add_success(index)
                self.finished.update(result)
                self._journals.drop(self.path(index).stem)
        return guard.failed, guard.first

    def _search(
        self, index: int, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor, saved: Saved
    ) -> TreeTotals:
        """Search one tree to its end, new or resumed; a failure is recorded with its last completed iteration.

        Raises:
            HeldOutTask: if it is a test task's; nothing is written then.
        """
        data: TreeFile | None = None  # as of the last completed iteration
        try:
            # A tree in a session of its own ends with it: another session would show another goal.
            with self._sessions(pool) as sessions, self._journal(index, sessions.shared) as journal:
                tree = self._store.read_begun(index) if sessions.shared else None
                sessions, actor = RecordedPool(sessions, journal), RecordedActor(actor, journal)
                if tree is None:
                    tree = self._new_tree(index, sessions)
                    self._held_out.check(tree.task)
                else:
                    data = tree_file(tree)
                for _ in self._iterations(tree, actor, sessions, threads):
                    data = tree_file(tree)
                    self._store.write(index, data)
                    saved(self.path(index))
            tree.status, tree.error = "done", ""
            self._store.write(index, tree_file(tree))
            saved(self.path(index))
            return tree_totals(tree)
        except HeldOutTask:
            raise
        except Exception as error:
            if self.stop.is_set() or isinstance(error, ServiceGone):
                raise  # an error while everything is being stopped is no failure of the task
            self._store.write_failure(index, data, error)
            saved(self.path(index))
            raise

    def _sessions(self, pool: SessionPool) -> AbstractContextManager[SessionPool]:
        """Return the sessions that a tree may use."""
        return sessions_of_a_tree(pool)

    def _journal(self, index: int, shared: bool) -> Journal:
        s = self.settings
        scope = {**self.strategy.fixed(), "prompt": s.prompt, "seed": s.seed, "format": s.form}
        return self._journals.open(self.path(index).stem, scope) if shared else Journal()

    def _new_tree(self, index: int, pool: SessionPool) -> Tree:
        if self.stop.is_set():
            raise Stopped
        with pool.session() as env:
            tree = self.strategy.new_tree(env.reset(index))
        tree.stats["env_resets"] += 1
        return tree

    def _iterations(
        self, tree: Tree, actor: Actor, pool: SessionPool, threads: ThreadPoolExecutor
    ) -> Iterator[int]:
        settings, stopped = self.settings, self.stop.is_set
        simulator = TaskSimulator(tree.task, settings, actor, pool, threads, self.counters, stopped)
        simulator.preload(tree)
        return self.strategy.run(tree, simulator)

    def _show(self, bar: Any) -> None:
        """Show the run's speed, and the mean reward of the finished trees' paths, on the progress bar."""
        counts = self.counters.counts()
        steps = counts.get("env_steps", 0) / max(bar.format_dict["elapsed"], 1e-9)
        rewards, paths = self.finished["reward_sum"], self.finished["leaves"]
        reward = {"reward": f"{rewards / paths:.2f}"} if paths else {}
        shown = {"steps/s": f"{steps:.1f}", "in flight": counts.get("in_flight", 0), **reward}
        bar.set_postfix(shown, refresh=False)

    def _conclude(self, ran: bool, failed: int, seconds: float) -> dict[str, Any]:
        """Return the totals; write the manifest unless there is one and nothing was left to search."""
        counts, tokens = run_totals(self.finished, failed, len(self._left_out))
        if ran or not self._has_manifest:
            files = [self.path(index) for index in self.indices if index not in self._left_out]
            usage = {**tokens, "this_run": self.usage, **self.spending.paid}
            write_manifest(self.manifest, "search", self.strategy.public(), [], files, counts, usage, seconds)
        self._journals.settle(self.path(index).stem for index in self._left_out)
        return {**counts, "strategy": self.strategy.name, "tokens": tokens, "seconds": seconds}
