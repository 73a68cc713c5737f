"""The search's access to the actor and the environment: candidates, single steps, parallel rollouts.

It implements the protocols of mcts.py; it keeps no tree and chooses nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from contextlib import contextmanager
from threading import Event

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import acting_messages, read_turn
from mcts_utils.replies import Reply, count_replies
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import derive_seed, ending
from mcts_utils.search.branching import BranchingRollouts, StateNode
from mcts_utils.search.env_sessions import Diverged, ExclusiveCursor, RolloutCursor, SessionManager
from mcts_utils.search.mcts import RolloutSteps
from mcts_utils.search.tree import Node, Tree, step_of
from mcts_utils.types import Actor, ContextOverflow, Environment, Step, Stopped, Task

EXPANSION = -1  # the "rollout number" of an expansion's seed
TIMING_COUNTS = ("in_flight", "replayed_steps")  # depend on the threads' timing: the run's, not the tree's


class IterationSimulator:
    """Access to the actor and the environment for one iteration (mcts.Explorer).

    The session that executed the chosen child continues as the first rollout. The others start from copies of it where
    the server makes copies; elsewhere they reset and replay.
    """

    def __init__(self, owner: TaskSimulator, iteration: int) -> None:
        self._owner, self._iteration = owner, iteration
        self._failed = Event()
        self._counters = Counters(owner.counters)
        self._sessions = SessionManager(
            owner.task, owner.pool, self._counters, lambda: self._failed.is_set() or owner.stopped()
        )
        self._env: Environment | None = None
        self._env_path: list[Step] = []  # what `_env` has executed

    def counts(self) -> Mapping[str, int]:
        return {name: count for name, count in self._counters.counts().items() if name not in TIMING_COUNTS}

    def sample(self, path: Sequence[Step], n: int, rollout: int = EXPANSION) -> list[Reply]:
        """Draw up to n turns after the path (mcts.Explorer); `rollout` is a part of the request's seed."""
        self._sessions.check()
        owner = self._owner
        form = owner.settings.form
        messages = acting_messages(owner.task, path, owner.settings.prompt, form)
        seed = derive_seed(owner.settings.seed, owner.task.index, self._iteration, rollout, len(path))
        self._counters.add(calls=1, in_flight=1)
        try:
            samples = owner.actor.sample(messages, n, owner.settings.temp, seed)
        except ContextOverflow:
            return []
        finally:
            self._counters.add(in_flight=-1)
        replies = [read_turn(sample, owner.task.env, form) for sample in samples]
        found = count_replies(replies, form)
        self._counters.add(
            completions=len(samples),
            prompt_tokens=sum(sample.prompt_tokens for sample in samples),
            completion_tokens=sum(sample.completion_tokens for sample in samples),
            invalid=found.pop("no_action"),
            **found,
        )
        return replies

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """Execute the reply after the path and return its step.

        Raises:
            EnvError: if the server fails, or if the path does not replay as recorded.
        """
        if self._env is None or self._env_path != list(path):
            self._env = self._env or self._sessions.take(str(self._iteration))
            self._sessions.go_to(self._env, path)
        step = self._sessions.step(self._env, reply, path)
        self._env_path = [*path, step]
        return step

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[RolloutSteps | None]:
        if max_steps is None:
            max_steps = self._owner.settings.max_depth - len(path)
        env, self._env = self._env, None
        if env is not None and self._env_path != list(path):
            self._sessions.give(env)
            env = None
        if not self._owner.can_fork(env):
            opened = (self._exclusive(path, None if i else env, f"{self._iteration}.{i}") for i in range(k))
            return self._run(opened, path, max_steps)
        branching = BranchingRollouts(self._sessions, self._owner.root.find(path), env, k)
        try:
            return self._run([branching.cursor] * k, path, max_steps)
        finally:
            branching.close()

    def release(self, usable: bool) -> None:
        """Return the sessions at the end of the iteration, or close them if it failed."""
        self._sessions.release(usable)

    def _exclusive(
        self, path: Sequence[Step], env: Environment | None, place: str
    ) -> Callable[[], RolloutCursor]:
        """Return a function that opens the cursor of a rollout from the path's end; `env` is there, or None.

        `place` names the rollout among those of the task.
        Where sessions are limited, this waits for a free one: the threads of the rollouts must not, since those that
        would give theirs back may wait for a thread.
        """
        waited = self._sessions.take(place) if env is None and self._owner.pool.limited else None

        def open_cursor() -> RolloutCursor:
            if env is not None:
                return ExclusiveCursor(self._sessions, env)
            taken = waited or self._sessions.take(place)
            try:
                self._sessions.go_to(taken, path)
            except Diverged:
                self._sessions.give(taken)  # it works, and others may be waiting for it
                raise
            return ExclusiveCursor(self._sessions, taken)

        return open_cursor

    def _run(
        self, openers: Iterable[Callable[[], RolloutCursor]], path: Sequence[Step], max_steps: int
    ) -> list[RolloutSteps | None]:
        """Run all rollouts at once; the first failure stops the others, and is raised when they have ended."""
        submit = self._owner.executor.submit
        futures: list[Future[RolloutSteps | None]] = []
        try:
            for number, opener in enumerate(openers):
                futures.append(submit(self._rollout, opener, path, number, max_steps))
        except BaseException:
            self._failed.set()
            wait(futures)
            raise
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            self._failed.set()
        wait(futures)  # none may use a session after the iteration has returned it
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return [future.result() for future in futures]

    def _rollout(
        self, open_cursor: Callable[[], RolloutCursor], path: Sequence[Step], number: int, max_steps: int
    ) -> RolloutSteps | None:
        try:
            cursor = open_cursor()
            steps = list(path)
            while len(steps) - len(path) < max_steps and not ending(steps):
                drawn = self.sample(steps, 1, number)
                if not drawn:
                    break
                steps.append(cursor.advance(drawn[0], steps))
            cursor.end()
        except Diverged:
            return None
        return tuple(steps[len(path) :])


class TaskSimulator:
    """Access to the actor and the environment for one task (mcts.Simulator): what its iterations share."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        actor: Actor,
        pool: SessionPool,
        executor: Executor,
        counters: Counters,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`executor` runs the rollouts; it must not be the one whose thread runs the search."""
        self.task, self.settings, self.actor, self.pool = task, settings, actor, pool
        self.executor, self.counters, self.stopped = executor, counters, stopped
        self.root = StateNode()  # what was executed on this task so far
        self._can_fork: bool | None = None

    def preload(self, tree: Tree) -> None:
        """Take over the executed nodes of a resumed tree, which need not be executed again."""
        stack: list[tuple[Node, StateNode]] = [(tree.root, self.root)]
        while stack:
            node, state = stack.pop()
            stack += [(child, state.find([step_of(child)])) for child in node.children if child.executed]

    def can_fork(self, env: Environment | None) -> bool:
        """Return True if the server can copy sessions; `env` is a session in hand, if there is one."""
        if self._can_fork is None and not self.pool.shared:
            self._can_fork = False
        if self._can_fork is None and env is not None:
            self._can_fork = "fork" in env.extensions
        if self._can_fork is None:
            with self.pool.session() as other:
                self._can_fork = "fork" in other.extensions
        return self._can_fork

    @contextmanager
    def iteration(self, number: int) -> Iterator[IterationSimulator]:
        """Open iteration `number`; its sessions are returned at the end, or closed if it failed."""
        simulator = IterationSimulator(self, number)
        usable = False
        try:
            yield simulator
            usable = True
        finally:
            simulator.release(usable)


def rollout_threads(settings: Settings) -> int:
    """Return the number of rollouts at once: enough to fill the endpoint, and no more than twice that.

    Waiting rollouts then begin in the order of the trees, which advance about equally, so no tree is left to end alone.
    """
    wanted = settings.workers * max(1, settings.n_rollout)
    return min(wanted, 2 * settings.in_flight)
