"""The open sessions of a WebShop server: players by id, thread-safe, closed when idle. No HTTP, no rules."""

from __future__ import annotations

import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.models import Goal
from mcts_utils.servers.webshop.shop import Shop

IDS = (1_000_000, 48_950_076)  # random, as on the public server: an id of an earlier server is not found here


class UnknownId(LookupError):
    """No open session has that id."""


@dataclass
class OpenSession:
    """One open session and when it was last used, in seconds of the store's clock."""

    player: ShopSession
    used: float


class Sessions:
    """All open sessions by id. Every call holds one lock: for the time of a search at the most."""

    def __init__(
        self, shop: Shop, idle_seconds: float, clock: Callable[[], float], rng: random.Random
    ) -> None:
        self.shop = shop
        self.idle_seconds = idle_seconds
        self._clock = clock
        self._rng = rng  # of the ids alone
        self._lock = threading.Lock()
        self._open: OrderedDict[int, OpenSession] = OrderedDict()  # least recently used first
        self._given = 0  # goals that nobody chose

    def ids(self) -> list[int]:
        """The open sessions, the oldest first."""
        with self._lock:
            self._close_idle()
            return list(self._open)

    def create(self) -> int:
        """A new session with the next goal in order; its id."""
        with self._lock:
            self._close_idle()
            return self._add(ShopSession(self.shop, self._next_goal()))

    def reset(self, number: int, index: int | None) -> str:
        """Start goal `index` (the next in order without one); the text of its first page.

        A negative index counts from the end.

        Raises:
            LookupError: no such session or goal; the session stays as it was.
        """
        with self._lock:
            entry = self._entry(number)
            goal = self._next_goal() if index is None else self.shop.goals[index]
            entry.player = ShopSession(self.shop, goal)
            return entry.player.page().text

    def step(self, number: int, action: str) -> dict[str, Any]:
        """One action; the answer of /step.

        Raises:
            LookupError: no such session, or a search without its category.
        """
        with self._lock:
            return _answer(self._entry(number).player, action)

    def replay(self, number: int, index: int | None, actions: Sequence[str]) -> dict[str, Any]:
        """A reset and actions up to the first that ends the task.

        Raises:
            LookupError: as of reset and step.
        """
        opening = self.reset(number, index)
        steps: list[dict[str, Any]] = []
        for action in actions:
            steps.append(self.step(number, action))
            if steps[-1]["done"]:
                break
        return {"reset": [opening, None], "steps": steps}

    def fork(self, number: int) -> int:
        """A new session in the same state; its id.

        Raises:
            LookupError: no such session.
        """
        with self._lock:
            return self._add(self._entry(number).player.copy())

    def look(self, number: int) -> ShopSession:
        """The player of a session, to read.

        Raises:
            LookupError: no such session.
        """
        with self._lock:
            return self._entry(number).player

    def close(self, number: int) -> bool:
        """True if the session was open."""
        with self._lock:
            self._close_idle()
            return self._open.pop(number, None) is not None

    def _add(self, player: ShopSession) -> int:
        number = self._rng.randint(*IDS)
        while number in self._open:
            number = self._rng.randint(*IDS)
        self._open[number] = OpenSession(player, self._clock())
        return number

    def _next_goal(self) -> Goal:
        self._given += 1
        return self.shop.goals[(self._given - 1) % len(self.shop.goals)]

    def _entry(self, number: int) -> OpenSession:
        self._close_idle()
        entry = self._open.get(number)
        if entry is None:
            raise UnknownId(number)
        entry.used = self._clock()
        self._open.move_to_end(number)
        return entry

    def _close_idle(self) -> None:
        now = self._clock()
        while self._open:
            number, entry = next(iter(self._open.items()))
            if now - entry.used <= self.idle_seconds:
                return
            del self._open[number]


def _answer(player: ShopSession, action: str) -> dict[str, Any]:
    text, reward, done = player.step(action)
    return {"state": text, "reward": float(reward), "done": done, "info": None}
