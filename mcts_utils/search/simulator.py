"""The search's way to the actor and the environment: candidates, single steps, parallel rollouts (search.Simulator).

It keeps no tree and chooses nothing: search.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import contextmanager
from threading import Event

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import ACTION_LINE, acting_messages, action_of
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import derive_seed, ending
from mcts_utils.search.branching import BranchingRollouts, StateNode
from mcts_utils.search.env_sessions import Diverged, ExclusiveCursor, RolloutCursor, SessionManager
from mcts_utils.search.tree import Node, Tree, step_of
from mcts_utils.types import Actor, ContextOverflow, Environment, Step, Stopped, Task

EXPANSION = -1  # the "rollout number" of an expansion's seed
PASSING = (
    "in_flight",
    "replayed_steps",
)  # counts that depend on the threads' timing: the run's, not the tree's


class IterationSimulator:
    """One iteration's access to the actor and the environment, for search.Explorer.

    The session that executed the chosen child goes on as the first rollout. The others start from copies of it where
    the server makes copies; elsewhere they reset and replay.
    """

    def __init__(self, owner: TaskSimulator, iteration: int) -> None:
        self._owner, self._iteration = owner, iteration
        self._failed = Event()
        self._meter = Counters(owner.meter)
        self._travel = SessionManager(
            owner.task, owner.pool, self._meter, lambda: self._failed.is_set() or owner.stopped()
        )
        self._env: Environment | None = None
        self._at: list[Step] = []  # where the held session stands

    def counts(self) -> Mapping[str, int]:
        """See search.Explorer."""
        return {name: count for name, count in self._meter.counts().items() if name not in PASSING}

    def sample(self, path: Sequence[Step], n: int, rollout: int = EXPANSION) -> list[tuple[str, str]]:
        """See search.Explorer."""
        self._travel.check()
        owner = self._owner
        messages = acting_messages(owner.task, path, owner.settings.prompt)
        seed = derive_seed(owner.settings.seed, owner.task.index, self._iteration, rollout, len(path))
        self._meter.add(calls=1, in_flight=1)
        try:
            samples = owner.actor.sample(messages, n, owner.settings.temp, seed)
        except ContextOverflow:
            return []
        finally:
            self._meter.add(in_flight=-1)
        replies = [sample.text.strip() for sample in samples]
        self._meter.add(
            completions=len(samples),
            prompt_tokens=sum(sample.prompt_tokens for sample in samples),
            completion_tokens=sum(sample.completion_tokens for sample in samples),
            invalid=sum(not ACTION_LINE.search(reply) for reply in replies),
        )
        return [(reply, action_of(reply)) for reply in replies]

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """See search.Explorer.

        Raises:
            EnvError: if the server fails, or if the path does not replay as recorded.
        """
        if self._env is None or self._at != list(path):
            self._env = self._env or self._travel.take()
            self._travel.go_to(self._env, path)
        step = self._travel.step(self._env, reply, path)
        self._at = [*path, step]
        return step

    def rollouts(
        self, path: Sequence[Step], k: int, most: int | None = None
    ) -> list[tuple[Step, ...] | None]:
        """See search.Explorer; each of at most `most` steps, where that is not what is left of MAX_DEPTH."""
        most = self._owner.settings.max_depth - len(path) if most is None else most
        held, self._env = self._env, None
        if held is not None and self._at != list(path):
            self._travel.give(held)
            held = None
        if not self._owner.forks():
            return self._run([self._lone(path, held if i == 0 else None) for i in range(k)], path, most)
        forks = BranchingRollouts(self._travel, self._owner.root.find(path), held, k)
        try:
            return self._run([forks.walk] * k, path, most)
        finally:
            forks.close()

    def release(self, usable: bool) -> None:
        """Give the sessions back at the end of the iteration, closed where it failed."""
        self._travel.release(usable)

    def _lone(self, path: Sequence[Step], held: Environment | None) -> Callable[[], RolloutCursor]:
        """Where a rollout with a session to itself begins."""

        def begin() -> RolloutCursor:
            env = held or self._travel.take()
            if env is not held:
                try:
                    self._travel.go_to(env, path)
                except Diverged:
                    self._travel.give(env)  # it works, and others may be waiting for it
                    raise
            return ExclusiveCursor(self._travel, env)

        return begin

    def _run(
        self, begins: Sequence[Callable[[], RolloutCursor]], path: Sequence[Step], most: int
    ) -> list[tuple[Step, ...] | None]:
        """All rollouts at once; the first failure stops the others, and is raised when they have ended."""
        submit = self._owner.executor.submit
        futures = [submit(self._rollout, begin, path, number, most) for number, begin in enumerate(begins)]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            self._failed.set()
        wait(futures)  # none may use a session after the iteration has given it back
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return [future.result() for future in futures]

    def _rollout(
        self, begin: Callable[[], RolloutCursor], path: Sequence[Step], number: int, most: int
    ) -> tuple[Step, ...] | None:
        try:
            walk = begin()
            steps = list(path)
            while len(steps) - len(path) < most and not ending(steps):
                drawn = self.sample(steps, 1, number)
                if not drawn:
                    break
                steps.append(walk.advance(drawn[0][0], steps))
            walk.end()
        except Diverged:
            return None
        return tuple(steps[len(path) :])


class TaskSimulator:
    """search.Simulator for one task: what its iterations share."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        actor: Actor,
        pool: SessionPool,
        executor: Executor,
        meter: Counters,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`executor` runs the rollouts; it must not be the one whose thread runs the search."""
        self.task, self.settings, self.actor, self.pool = task, settings, actor, pool
        self.executor, self.meter, self.stopped = executor, meter, stopped
        self.root = StateNode()  # what was executed on this task so far
        self._forks: bool | None = None

    def preload(self, tree: Tree) -> None:
        """A tree that is gone on with: what is in it need not be executed again."""
        stack: list[tuple[Node, StateNode]] = [(tree.root, self.root)]
        while stack:
            node, place = stack.pop()
            stack += [(child, place.find([step_of(child)])) for child in node.children if child.executed]

    def forks(self) -> bool:
        """True if the server can copy sessions."""
        if self._forks is None:
            self._forks = False
            if self.pool.shared:
                with self.pool.session() as env:
                    self._forks = "fork" in env.extensions
        return self._forks

    @contextmanager
    def iteration(self, number: int) -> Iterator[IterationSimulator]:
        """See search.Simulator."""
        explorer = IterationSimulator(self, number)
        usable = False
        try:
            yield explorer
            usable = True
        finally:
            explorer.release(usable)
