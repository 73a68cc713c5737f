"""Pool environment sessions, so that they are reused, by one user at a time, and limit them. It runs no episodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore, Condition, Lock

from mcts_utils.config import Settings
from mcts_utils.envs.specs import env_spec
from mcts_utils.types import EnvError, Environment, MakeEnvironment, Stopped

POLL_SECONDS = 0.1  # between two checks whether a wait is cancelled
UNLIMITED = 1_000_000


def session_limit(settings: Settings, server_kind: str) -> int:
    """Return the number of sessions that a stage may have open at once, by MAX_SESSIONS and the kind of server."""
    if server_kind != "agentgym":
        return UNLIMITED  # it limits itself, and copies of sessions would be counted twice
    return settings.max_sessions or env_spec(settings.task).most_sessions or UNLIMITED


class SessionPool:
    """Sessions of one factory, reused after each user; a session that failed is closed. Safe for threads.

    At most `limit` are lent at once, and `take` waits for a free one. A thread that others need to give sessions back
    must not wait in it.
    """

    shared = True  # opens as many sessions as are in use at once

    def __init__(self, factory: MakeEnvironment, limit: int = UNLIMITED) -> None:
        self.limited = limit < UNLIMITED
        self._factory = factory
        self._free = BoundedSemaphore(limit)
        self._idle: list[Environment] = []
        self._closed = False
        self._lock = Lock()

    @contextmanager
    def session(self, stopped: Callable[[], bool] = lambda: False) -> Iterator[Environment]:
        """Lend a session for the length of a `with`; drop it if the block raises. Otherwise as `take`."""
        env = self.take(stopped)
        try:
            yield env
        except BaseException:
            self.drop(env)
            raise
        self.give(env)

    def take(self, stopped: Callable[[], bool] = lambda: False) -> Environment:
        """Return a session for one user, who resets it first and gives it back or drops it.

        Raises:
            Stopped: `stopped` returned True during the wait for a free session.
            InputError, EnvError: no new session can be opened.
        """
        while not self._free.acquire(timeout=POLL_SECONDS):
            if stopped():
                raise Stopped
        with self._lock:
            env = self._idle.pop() if self._idle else None
        try:
            return env or self._factory()
        except BaseException:
            self._free.release()
            raise

    def give(self, env: Environment) -> None:
        """Give back a session that works."""
        with self._lock:
            keep = not self._closed
            if keep:
                self._idle.append(env)
        if not keep:
            env.close()
        self._free.release()

    def drop(self, env: Environment) -> None:
        """Close a session that failed."""
        env.close()
        self._free.release()

    def close(self) -> None:
        """Close the idle sessions; the others are closed when they are given back."""
        with self._lock:
            self._closed, idle, self._idle = True, self._idle, []
        for env in idle:
            env.close()


class SingleSessionPool(SessionPool):
    """One session for all users, one after the other, where another session would have other tasks.

    A public WebShop draws the price limits of its goals anew for each session, so that a tree needs a single one.
    """

    shared = False
    limited = False

    def __init__(self, pool: SessionPool, env: Environment) -> None:
        """`env` was taken from `pool`; `close` gives it back there."""
        self._pool = pool
        self._env: Environment | None = env
        self._is_free = True
        self._changed = Condition()

    def take(self, stopped: Callable[[], bool] = lambda: False) -> Environment:
        """Return the session as soon as it is free.

        Raises:
            EnvError: the session failed.
            Stopped: `stopped` returned True while the session was in use.
        """
        with self._changed:
            while not self._changed.wait_for(lambda: self._is_free, POLL_SECONDS):
                if stopped():  # its user may have ended without giving it back
                    raise Stopped
            if self._env is None:
                raise EnvError("the session of this tree failed, and another one has other goals")
            self._is_free = False
            return self._env

    def give(self, env: Environment) -> None:
        """Give the session to the next user."""
        with self._changed:
            self._is_free = True
            self._changed.notify()

    def drop(self, env: Environment) -> None:
        """Close the session, which is not replaced: later calls of `take` raise EnvError."""
        self._pool.drop(env)
        with self._changed:
            self._env, self._is_free = None, True
            self._changed.notify_all()

    def close(self) -> None:
        """Give the session back to the pool that it was taken from."""
        if self._env is not None:
            self._pool.give(self._env)
