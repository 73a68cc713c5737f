"""Environment sessions of one search iteration: taken, brought to a node, stepped, counted, and returned.

It asks no actor and keeps no tree. branching.py adds what servers that can copy a session make possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from threading import Lock
from typing import Protocol

from mcts_utils.envs.session_pool import SessionPool, SingleSessionPool
from mcts_utils.prompts import env_steps_of
from mcts_utils.replies import Reply
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import replay, take_step
from mcts_utils.rollouts.recorded import RecordedSession
from mcts_utils.rollouts.steps import earned
from mcts_utils.types import EnvError, Environment, Step, Stopped, Task

REPLAYS = 3  # attempts to bring a session to a node; only ScienceWorld needs more than one


class Diverged(EnvError):
    """A replay did not come back as recorded."""


class RolloutCursor(Protocol):
    """The position of one rollout in the environment."""

    def advance(self, reply: Reply, before: Sequence[Step]) -> Step:
        """Execute the reply and return its step; `before` are the steps from the root."""

    def end(self) -> None:
        """Release what the rollout holds; called when it is over."""


class SessionManager:
    """The sessions of one iteration on one task, and counts of what they executed.

    Safe for threads; each session has one user at a time.
    """

    def __init__(
        self, task: Task, pool: SessionPool, counters: Counters, stopped: Callable[[], bool]
    ) -> None:
        self.task, self.counters, self._pool, self._stopped = task, counters, pool, stopped
        self._lock = Lock()
        self._live: list[Environment] = []
        self._taken = 0  # as many of the live ones go back to the pool, the others are copies

    def check(self) -> None:
        """Raise Stopped if the run or the iteration is being stopped."""
        if self._stopped():
            raise Stopped

    def take(self, place: str = "") -> Environment:
        """Return a session from the pool; its state is undefined. `place` names its use among those of this task."""
        env = self._pool.take(self._stopped)
        if isinstance(env, RecordedSession):
            env.place = place
        with self._lock:
            self._taken += 1
            self._live.append(env)
        return env

    def adopt(self, env: Environment) -> Environment:
        """Manage a session that was made by copying, and return it."""
        with self._lock:
            self._live.append(env)
        return env

    def give(self, env: Environment) -> None:
        """Return a working session to the pool, or close it if the pool has got back all that were taken."""
        with self._lock:
            self._live.remove(env)
            kept = self._taken > 0
            self._taken -= kept
        if kept:
            self._pool.give(env)
        else:
            env.close()

    def drop(self, env: Environment) -> None:
        """Close a session that failed."""
        with self._lock:
            self._live.remove(env)
            taken = self._taken > len(self._live)
            self._taken -= taken
        if taken:
            self._pool.drop(env)
        else:
            env.close()

    def release(self, usable: bool) -> None:
        """Return all sessions that are left, or close them if not usable. Call it when none is in use any more."""
        for env in list(self._live):
            if usable:
                self.give(env)
            else:
                self.drop(env)

    def step(self, env: Environment, reply: str, before: Sequence[Step]) -> Step:
        """Execute a reply in a session that has executed the steps `before`; return its step."""
        self.check()
        step = take_step(env, reply, earned(before))
        self.counters.add(env_steps=env_steps_of(step))
        return step

    def go_to(self, env: Environment, path: Sequence[Step]) -> None:
        """Bring a session to the end of the path.

        Raises:
            Diverged: if the path does not come back as recorded.
            EnvError: if the server fails, or has another goal at the task's index.
        """
        for _ in range(REPLAYS):
            self.check()
            task, steps = replay(env, self.task.index, [step.reply for step in path])
            self.counters.add(env_resets=1, env_steps=sum(env_steps_of(step) for step in steps))
            if task.id != self.task.id:
                raise EnvError(f"index {task.index} was {self.task.id} and is now {task.id}")
            if same_scores(steps, path):
                return
        raise Diverged(f"index {self.task.index}: {len(path)} steps do not replay as recorded")


def same_scores(steps: Sequence[Step], path: Sequence[Step]) -> bool:
    """Return True if scores and ends are the same. Observations may vary (ScienceWorld)."""
    return [(s.reward, s.done) for s in steps] == [(s.reward, s.done) for s in path]


class ExclusiveCursor:
    """The cursor of a rollout that has a session to itself."""

    def __init__(self, sessions: SessionManager, env: Environment) -> None:
        self._sessions, self._env = sessions, env

    def advance(self, reply: Reply, before: Sequence[Step]) -> Step:
        return replace(self._sessions.step(self._env, reply.text, before), cut=reply.cut)

    def end(self) -> None:
        self._sessions.give(self._env)


@contextmanager
def sessions_of_a_tree(pool: SessionPool) -> Iterator[SessionPool]:
    """Yield the pool, or a pool of one of its sessions if other sessions would show other goals."""
    env = pool.take()
    try:
        bound = env.session_bound_tasks
    except BaseException:
        pool.drop(env)
        raise
    if not bound:
        pool.give(env)
        yield pool
        return
    with closing(SingleSessionPool(pool, env)) as single:
        yield single
