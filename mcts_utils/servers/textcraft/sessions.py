"""The open sessions of a TextCraft server: what its requests do, as values. Thread-safe; no HTTP, no rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mcts_utils.servers.contract import until_done
from mcts_utils.servers.session_store import MAX_SESSIONS, SessionStore
from mcts_utils.servers.textcraft.world import Session, World


@dataclass
class OpenSession:
    """One open session."""

    game: Session
    info: dict[str, Any] = field(default_factory=dict)  # the last answer, as /detail shows it


class Sessions:
    """All open sessions by id. Safe to call from many threads: every call holds one lock for some microseconds.

    Methods that take a session's id raise UnknownId if no such session is open; those that open one raise Full.
    """

    def __init__(
        self, world: World, idle_seconds: float, clock: Callable[[], float], max_sessions: int = MAX_SESSIONS
    ) -> None:
        self.world = world
        self.store: SessionStore[OpenSession] = SessionStore(idle_seconds, clock, max_sessions)
        self._created = 0
        self._openings: dict[str, str] = {}  # by goal: a goal's text is always the same, so it is built once

    def create(self) -> dict[str, Any]:
        """Open a session with the next goal in order."""
        with self.store.lock:
            self.store.pop_idle()
            session = OpenSession(Session(self.world, ""))
            number = self.store.add(session)
            self._created += 1
            return {"id": number, **self._start(session, self._created - 1)}

    def reset(self, number: int, index: int | None) -> dict[str, Any]:
        """Start goal `index` (modulo the number of goals) with an empty inventory.

        Raises:
            TypeError: the index is None.
        """
        with self.store.lock:
            return {"id": number, **self._start(self._get(number), index)}

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Execute one action. There is no guard after done, as on the public server.

        Raises:
            ValueError: a count of more digits than Python converts.
        """
        with self.store.lock:
            session = self._get(number)
            observation, reward, done = session.game.step(action)
            answer = {"observation": observation, "reward": reward, "done": done}
            session.info.update(answer)
            return answer

    def fork(self, number: int) -> dict[str, Any]:
        """Open a session in the same state as an open one; both are independent from then on."""
        with self.store.lock:
            session = self._get(number)
            game = Session(self.world, session.game.goal, dict(session.game.inventory))
            return {"id": self.store.add(OpenSession(game, dict(session.info)))}

    def replay(self, number: int, index: int | None, actions: list[str]) -> dict[str, Any]:
        """Reset and execute actions in one call, up to the first step that is done.

        Raises:
            TypeError, ValueError: as reset and step.
        """
        opening = self.reset(number, index)
        return {"reset": opening, "steps": until_done(partial(self.step, number), actions)}

    def detail(self, number: int) -> dict[str, Any]:
        """Return the last answer of that session."""
        with self.store.lock:
            return dict(self._get(number).info)

    def close(self, number: int) -> bool:
        """Close a session; return True if it was open."""
        with self.store.lock:
            self.store.pop_idle()
            return self.store.pop(number) is not None

    def _start(self, session: OpenSession, index: int | None) -> dict[str, Any]:
        goal = self.world.goals[index % len(self.world.goals)]  # type: ignore[operator]  # None: its error is the answer
        if goal not in self._openings:
            self._openings[goal] = self.world.opening(goal)
        session.game = Session(self.world, goal)
        answer = {"observation": self._openings[goal], "done": False, "reward": 0}
        session.info = {**answer, "deleted": False}
        return answer

    def _get(self, number: int) -> OpenSession:
        self.store.pop_idle()
        return self.store.get(number)
