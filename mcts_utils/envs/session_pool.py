"""Environment sessions that are used again and again, by one user at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Condition, Lock

from mcts_utils.types import (
    EnvError,
    Environment,
    Stopped,
)


class SessionPool:
    """Environment sessions that are used again and again; one that raised is dropped. Safe for threads."""

    shared = True  # as many sessions as are asked for

    def __init__(self, factory: Callable[[], Environment]) -> None:
        self._factory = factory
        self._idle: list[Environment] = []
        self._closed = False
        self._lock = Lock()

    @contextmanager
    def session(self) -> Iterator[Environment]:
        """A session for one user at a time; reset it first."""
        env = self.take()
        try:
            yield env
        except BaseException:
            self.drop(env)
            raise
        self.give(env)

    def take(self, stopped: Callable[[], bool] = lambda: False) -> Environment:
        """A session for one user, who gives it back or drops it; reset it first. `stopped` ends a wait for it."""
        with self._lock:
            env = self._idle.pop() if self._idle else None
        return env or self._factory()

    def give(self, env: Environment) -> None:
        """Take a session back that works."""
        with self._lock:
            keep = not self._closed
            if keep:
                self._idle.append(env)
        if not keep:
            env.close()

    def drop(self, env: Environment) -> None:
        """Close a session that failed."""
        env.close()

    def close(self) -> None:
        """Close the idle sessions; those in use are closed when they come back."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for env in idle:
            env.close()


WAKE = 0.1  # seconds between two looks whether a wait is over


class SingleSessionPool(SessionPool):
    """One session for all users, one after the other: where another session would be another task.

    A public WebShop draws the price limits of its goals with each session, so all of a tree happens in one.
    """

    shared = False

    def __init__(self, pool: SessionPool, env: Environment) -> None:
        """`env` was taken from `pool`, and goes back there at the end."""
        self._pool = pool
        self._env: Environment | None = env
        self._free = True
        self._turn = Condition()

    def take(self, stopped: Callable[[], bool] = lambda: False) -> Environment:
        """The session, once it is free.

        Raises:
            EnvError: it failed.
            Stopped: `stopped` said so while it was in use.
        """
        with self._turn:
            while not self._turn.wait_for(lambda: self._free, WAKE):
                if stopped():  # whoever has it may have ended without giving it back
                    raise Stopped
            if self._env is None:
                raise EnvError("the session of this tree failed, and another one has other goals")
            self._free = False
            return self._env

    def give(self, env: Environment) -> None:
        """The next one may have it."""
        with self._turn:
            self._free = True
            self._turn.notify()

    def drop(self, env: Environment) -> None:
        """Close it; there is no other."""
        env.close()
        with self._turn:
            self._env, self._free = None, True
            self._turn.notify_all()

    def close(self) -> None:
        """Give the session back to where it came from."""
        if self._env is not None:
            self._pool.give(self._env)
