"""The open sessions of a TextCraft server: players by id, thread-safe, closed when idle. No HTTP, no rules."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mcts_utils.servers.textcraft.world import Session, World


class UnknownId(LookupError):
    """No open session has that id."""

    def __init__(self, number: int) -> None:
        super().__init__(f"The id {number} is not valid.")


@dataclass
class OpenSession:
    """One open session: the game, the last answer as /detail shows it, and when it was last used."""

    game: Session
    info: dict[str, Any]
    used: float  # seconds of the store's clock


class Sessions:
    """All open sessions by id. Safe to call from many threads: every call holds one lock for some microseconds."""

    def __init__(self, world: World, idle_seconds: float, clock: Callable[[], float]) -> None:
        self.world = world
        self.idle_seconds = idle_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[int, OpenSession] = OrderedDict()  # least recently used first
        self._created = 0
        self._openings: dict[str, str] = {}  # a goal always shows the same text, so it is built once

    def create(self) -> dict[str, Any]:
        """A new session; it starts with the goal whose index is its id."""
        with self._lock:
            self._close_idle()
            number = self._created
            self._created += 1
            self._open[number] = OpenSession(Session(self.world, ""), {}, self._clock())
            return {"id": number, **self._start(self._open[number], number)}

    def reset(self, number: int, index: int | None) -> dict[str, Any]:
        """Start goal `index` (modulo the number of goals) with an empty inventory.

        Raises:
            UnknownId: no such session.
            TypeError: the index is None.
        """
        with self._lock:
            player = self._player(number)
            return {"id": number, **self._start(player, index)}

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Execute one action. There is no guard after done, as on the public server.

        Raises:
            UnknownId: no such session.
            ValueError: a count of more digits than Python converts.
        """
        with self._lock:
            player = self._player(number)
            observation, reward, done = player.game.step(action)
            answer = {"observation": observation, "reward": reward, "done": done}
            player.info.update(answer)
            return answer

    def fork(self, number: int) -> dict[str, Any]:
        """A new session in the same state; the two go on independently.

        Raises:
            UnknownId: no such session.
        """
        with self._lock:
            player = self._player(number)
            copy = self._created
            self._created += 1
            game = Session(self.world, player.game.goal, dict(player.game.inventory))
            self._open[copy] = OpenSession(game, dict(player.info), self._clock())
            return {"id": copy}

    def replay(self, number: int, index: int | None, actions: list[str]) -> dict[str, Any]:
        """A reset and steps in one call, up to the first step that is done.

        Raises:
            UnknownId, TypeError, ValueError: as reset and step.
        """
        answer: dict[str, Any] = {"reset": self.reset(number, index), "steps": []}
        for action in actions:
            answer["steps"].append(self.step(number, action))
            if answer["steps"][-1]["done"]:
                break
        return answer

    def detail(self, number: int) -> dict[str, Any]:
        """The last answer of that session.

        Raises:
            UnknownId: no such session.
        """
        with self._lock:
            return dict(self._player(number).info)

    def close(self, number: int) -> bool:
        """True if the session was open."""
        with self._lock:
            self._close_idle()
            return self._open.pop(number, None) is not None

    def _start(self, player: OpenSession, index: int | None) -> dict[str, Any]:
        goal = self.world.goals[index % len(self.world.goals)]  # type: ignore[operator]  # None: its error is the answer
        if goal not in self._openings:
            self._openings[goal] = self.world.opening(goal)
        player.game = Session(self.world, goal)
        answer = {"observation": self._openings[goal], "done": False, "reward": 0}
        player.info = {**answer, "deleted": False}
        return answer

    def _player(self, number: int) -> OpenSession:
        self._close_idle()
        player = self._open.get(number)
        if player is None:
            raise UnknownId(number)
        player.used = self._clock()
        self._open.move_to_end(number)
        return player

    def _close_idle(self) -> None:
        now = self._clock()
        while self._open:
            number, player = next(iter(self._open.items()))
            if now - player.used <= self.idle_seconds:
                return
            del self._open[number]
