"""The open sessions of a WebShop server: what its requests do, as values. Thread-safe; no HTTP, no rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from mcts_utils.servers.contract import until_done
from mcts_utils.servers.session_store import MAX_SESSIONS, SessionStore
from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.models import Goal
from mcts_utils.servers.webshop.shop import Shop


class Sessions:
    """All open sessions by id. Every call holds one lock, for the time of a search at most.

    Methods that take a session's id raise UnknownId if no such session is open; those that open one raise Full.
    """

    def __init__(
        self, shop: Shop, idle_seconds: float, clock: Callable[[], float], max_sessions: int = MAX_SESSIONS
    ) -> None:
        self.shop = shop
        self.store: SessionStore[ShopSession] = SessionStore(idle_seconds, clock, max_sessions)
        self._dealt = 0  # the number of goals given to sessions without a chosen one

    def ids(self) -> list[int]:
        """Return the ids of the open sessions, least recently used first."""
        with self.store.lock:
            self.store.pop_idle()
            return self.store.ids()

    def create(self) -> int:
        """Open a session with the next goal in order, and return its id."""
        with self.store.lock:
            self.store.pop_idle()
            return self.store.add(ShopSession(self.shop, self._next_goal()))

    def reset(self, number: int, index: int | None) -> str:
        """Start goal `index` (None: the next in order), and return the text of its first page.

        A negative index counts from the end.

        Raises:
            IndexError: no such goal; the session stays as it was.
        """
        with self.store.lock:
            self._get(number)  # before a goal is taken
            goal = self._next_goal() if index is None else self.shop.goals[index]
            session = ShopSession(self.shop, goal)
            self.store.replace(number, session)
            return session.page().text

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Execute one action, and return the answer of /step.

        Raises:
            IndexError: a search for `<c>` without a category.
        """
        with self.store.lock:
            text, reward, done = self._get(number).step(action)
            return {"state": text, "reward": float(reward), "done": done, "info": None}

    def replay(self, number: int, index: int | None, actions: Sequence[str]) -> dict[str, Any]:
        """Reset and execute actions in one call, up to the first step that is done.

        Raises:
            IndexError: as reset and step.
        """
        opening = self.reset(number, index)
        return {"reset": [opening, None], "steps": until_done(partial(self.step, number), actions)}

    def fork(self, number: int) -> int:
        """Open a session in the same state as an open one, and return its id."""
        with self.store.lock:
            return self.store.add(self._get(number).copy())

    def get(self, number: int) -> ShopSession:
        """Return a session, for reading only."""
        with self.store.lock:
            return self._get(number)

    def close(self, number: int) -> bool:
        """Close a session; return True if it was open."""
        with self.store.lock:
            self.store.pop_idle()
            return self.store.pop(number) is not None

    def _next_goal(self) -> Goal:
        self._dealt += 1
        return self.shop.goals[(self._dealt - 1) % len(self.shop.goals)]

    def _get(self, number: int) -> ShopSession:
        self.store.pop_idle()
        return self.store.get(number)
