"""Sessions on their way through a search tree: taken, brought to a node, moved step by step, counted, given back.

It asks no actor and keeps no tree. forks.py is for servers that can copy a session.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol

from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import is_signal_step
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import replay, take_step
from mcts_utils.types import EnvError, Environment, Step, Stopped, Task

REPLAYS = 3  # attempts to bring a session to a node; only ScienceWorld needs more than one


class Diverged(EnvError):
    """A replay did not come back as recorded."""


class RolloutCursor(Protocol):
    """One rollout's way through the environment."""

    def advance(self, reply: str, before: Sequence[Step]) -> Step:
        """The step that the reply makes; `before` are the steps from the root."""

    def end(self) -> None:
        """The rollout is over, or given up."""


class SessionManager:
    """The sessions of one iteration on one task, and what they executed. Safe for threads, one user a session."""

    def __init__(self, task: Task, pool: SessionPool, meter: Counters, stopped: Callable[[], bool]) -> None:
        self.task, self.meter, self._pool, self._stopped = task, meter, pool, stopped
        self._lock = Lock()
        self._live: list[Environment] = []
        self._taken = 0  # as many of the live ones go back to the pool, the others are copies

    def check(self) -> None:
        """Raises Stopped when the run or the iteration is being stopped."""
        if self._stopped():
            raise Stopped

    def take(self) -> Environment:
        """A session from the pool, anywhere."""
        env = self._pool.take(self._stopped)
        with self._lock:
            self._taken += 1
            self._live.append(env)
        return env

    def adopt(self, env: Environment) -> Environment:
        """Look after a session that was made by copying."""
        with self._lock:
            self._live.append(env)
        return env

    def give(self, env: Environment) -> None:
        """The session is not needed any more, and works: back to the pool, if it has room."""
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
            self._taken = min(self._taken, len(self._live))
        self._pool.drop(env)

    def release(self, usable: bool) -> None:
        """Give all that is left; close it where the iteration failed. Only when nobody uses a session any more."""
        for env in list(self._live):
            if usable:
                self.give(env)
            else:
                self.drop(env)

    def step(self, env: Environment, reply: str, before: Sequence[Step]) -> Step:
        """Execute a reply in a session that stands behind `before`."""
        self.check()
        step = take_step(env, reply, before[-1].reward if before else 0.0)
        self.meter.add(env_steps=not is_signal_step(step))
        return step

    def go_to(self, env: Environment, path: Sequence[Step]) -> None:
        """Bring a session to the end of the path.

        Raises:
            Diverged: the path does not come back as recorded.
            EnvError: the server fails, or has another goal under the task's index.
        """
        for _ in range(REPLAYS):
            self.check()
            task, steps = replay(env, self.task.index, [step.reply for step in path])
            self.meter.add(env_resets=1, env_steps=sum(not is_signal_step(step) for step in steps))
            if task.id != self.task.id:
                raise EnvError(f"index {task.index} was {self.task.id} and is now {task.id}")
            if same_course(steps, path):
                return
        raise Diverged(f"index {self.task.index}: {len(path)} steps do not replay as recorded")


def same_course(steps: Sequence[Step], path: Sequence[Step]) -> bool:
    """True if scores and end are the same. Observations may vary (ScienceWorld)."""
    return [(s.reward, s.done) for s in steps] == [(s.reward, s.done) for s in path]


class ExclusiveCursor:
    """A rollout that has a session to itself (Walk)."""

    def __init__(self, travel: SessionManager, env: Environment) -> None:
        self._travel, self._env = travel, env

    def advance(self, reply: str, before: Sequence[Step]) -> Step:
        """See Walk."""
        return self._travel.step(self._env, reply, before)

    def end(self) -> None:
        """See Walk."""
        self._travel.give(self._env)
