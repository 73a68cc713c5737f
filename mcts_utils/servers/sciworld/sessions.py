"""The open sessions of a ScienceWorld server: what its requests do, as values. Thread-safe; no HTTP.

A session has one simulator of the pool. A session whose Java process ended, or that was idle for too long, is unknown
from then on, as after a restart of the server: a client then creates another one and replays its actions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.servers.sciworld.games import Game, games
from mcts_utils.servers.sciworld.pool import Pool
from mcts_utils.servers.sciworld.simulator import GameSimulator, Lost
from mcts_utils.servers.session_store import MAX_SESSIONS, Full, SessionStore, UnknownId

MOVES = 100  # more ticks than that end the episode: the package's envStepLimit
# The public server's error text for a step before the first reset.
NOT_RESET = "'ScienceWorldEnv' object has no attribute 'variationIdx'"
LISTED = 10  # actions and objects that /state shows, at most


def stripped(text: str) -> str:
    """Return the action in a model's reply, as /step_visual reads it; /step takes its text unchanged."""
    text = text.removesuffix("</s>")
    return text.split("Action:")[1].strip() if "Action:" in text else text


def _game(index: int) -> Game:
    if not -len(games()) <= index < len(games()):
        raise IndexError("list index out of range")  # the public server keeps a list
    return games()[index]


@dataclass
class OpenSession:
    """One open session."""

    simulator: GameSimulator
    # The fields of all answers so far, as /detail shows them.
    info: dict[str, Any] = field(default_factory=lambda: {"deleted": False, "done": False})
    score: int = 0  # after the last step; a step's reward is the difference
    lock: threading.Lock = field(default_factory=threading.Lock)  # one request at a time


def _state(session: OpenSession) -> dict[str, Any]:
    """Return a summary of the session."""
    simulator = session.simulator
    getters = ("freeActionLook", "freeActionInventory", "getTaskDescription", "getGoalProgressStr")
    look, held, task, progress, moves = simulator.read(*getters, "getNumMoves")
    return {
        "observation": look,
        "inventory": held,
        "task_description": task,
        "goal_progress": progress,
        "possible_actions": simulator.possible_actions()[:LISTED],
        "possible_objects": simulator.possible_objects()[:LISTED],
        "current_moves": moves,
        "environment_info": dict(session.info),
    }


def _hint(session: OpenSession) -> dict[str, Any]:
    """Return the action templates and the objects in view."""
    simulator = session.simulator
    return {
        "possible_actions": simulator.possible_actions(),
        "possible_objects": simulator.possible_objects(),
    }


# What a request can read of a session; `detail` is all fields of the answers so far.
READ: dict[str, Callable[[OpenSession], Any]] = {
    "observation": lambda session: session.info["observation"],
    "detail": lambda session: dict(session.info),
    "action_hint": _hint,
    "goals": lambda session: {"goals": session.simulator.read("getGoalProgressStr")[0]},
    "task_description": lambda session: {"task_description": session.simulator.read("getTaskDescription")[0]},
    "object_tree": lambda session: {"object_tree": session.simulator.object_tree()},
    "state": _state,
}


class Sessions:
    """All open sessions by id. Safe to call from many threads.

    The message of an error that a method raises is the error text of the answer. Methods that take a session's id raise
    UnknownId if it is not open, and ValueError if its episode has ended.
    """

    def __init__(
        self, pool: Pool, idle_seconds: float, clock: Callable[[], float], max_sessions: int = MAX_SESSIONS
    ) -> None:
        self.pool = pool
        self.store: SessionStore[OpenSession] = SessionStore(idle_seconds, clock, max_sessions)

    def create(self) -> dict[str, Any]:
        """Open a session, without a game.

        Raises:
            Full: no more sessions are allowed, or the processes have no room for one.
        """
        self._close_idle()
        session = OpenSession(self.pool.simulator())
        try:
            with self.store.lock:
                return {"id": self.store.add(session)}
        except Full:
            self.pool.release(session.simulator)
            raise

    def reset(self, number: int, index: int) -> dict[str, Any]:
        """Start the game with that index; a negative index counts from the end, as in Python.

        Raises:
            IndexError: no such game.
        """
        return self._with(number, lambda session: self._reset(session, index), finished_too=True)

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Execute one action."""
        return self._with(number, lambda session: self._step(session, action)[0])

    def step_visual(self, number: int, reply: str) -> dict[str, Any]:
        """Execute the action in a model's reply; return all there is to show, with the valid actions (50 ms)."""
        return self._with(number, lambda session: self._step_visual(session, stripped(reply)))

    def replay(self, number: int, index: int, actions: Sequence[str]) -> dict[str, Any]:
        """Reset and execute actions in one request, up to the first step that ends the episode.

        It is an extension; the public server has no such request.
        """

        def play(session: OpenSession) -> dict[str, Any]:
            answer: dict[str, Any] = {"reset": self._reset(session, index), "steps": []}
            for action in actions:
                if session.info["done"]:
                    break
                answer["steps"].append(self._step(session, action)[0])
            return answer

        return self._with(number, play, finished_too=True)

    def read(self, number: int, what: str) -> Any:
        """Return what READ has under that name; it changes nothing."""
        return self._with(number, READ[what])

    def gold(self, index: int) -> dict[str, Any]:
        """Return actions that reach score 100 in the game with that index; it takes a second or more.

        It is an extension; the public server has no such request.

        Raises:
            IndexError: no such game.
        """
        game = _game(index)
        simulator = self.pool.simulator()
        try:
            return {"actions": simulator.gold_path(game)}
        finally:
            self.pool.release(simulator)

    def close(self, number: int) -> bool:
        """Close a session; return True if it was open."""
        with self.store.lock:
            session = self.store.pop(number)
        if session is not None:
            self.pool.release(session.simulator)
        return session is not None

    def _with(self, number: int, call: Callable[[OpenSession], Any], finished_too: bool = False) -> Any:
        """Call a function with the session, under the session's lock, and return the result.

        Raises:
            UnknownId: no such session, or its Java process has ended.
            ValueError: its episode has ended and not `finished_too`.
        """
        self._close_idle()
        with self.store.lock:
            session = self.store.get(number)
        with session.lock:
            if session.info["done"] and not finished_too:
                raise ValueError(f"The task with environment {number} has finished.")
            try:
                return call(session)
            except Lost:
                self.close(number)
                raise UnknownId(number) from None

    def _close_idle(self) -> None:
        with self.store.lock:
            idle = self.store.pop_idle()
        for session in idle:
            self.pool.release(session.simulator)

    def _reset(self, session: OpenSession, index: int) -> dict[str, Any]:
        game = _game(index)
        session.simulator.load(game)
        session.score = 0
        description = session.simulator.read("getTaskDescription")[0]
        look, _ = self._step(session, "look around")
        answer = {
            "task_name": game.task,
            "var_num": game.variation,
            "task_description": description,
            "observation": look["observation"],
            "reward": look["reward"],
            "score": look["score"],
            "deleted": False,
            "done": look["done"],
        }
        session.info.update(answer)
        return answer

    def _step(self, session: OpenSession, action: str) -> tuple[dict[str, Any], int]:
        """Return the answer, and the moves so far."""
        if session.simulator.game is None:
            raise ValueError(NOT_RESET)
        reply = session.simulator.step(action)
        answer = {
            "observation": reply.observation,
            "reward": reply.score - session.score,
            "score": reply.score,
            "done": reply.completed or reply.moves > MOVES or reply.score < 0,
        }
        session.score = reply.score
        session.info.update(answer)
        return answer, reply.moves

    def _step_visual(self, session: OpenSession, action: str) -> dict[str, Any]:
        answer, moves = self._step(session, action)
        simulator, game = session.simulator, session.simulator.game
        assert game is not None
        look, held, task = simulator.read("freeActionLook", "freeActionInventory", "freeActionTaskDesc")
        info = {
            "moves": moves,
            "score": answer["score"],
            "reward": answer["reward"],
            "look": look,
            "inv": held,
            "taskDesc": task,
            "valid": simulator.valid_actions(),
            "variationIdx": game.variation,
            "taskName": game.task,
            "simplificationStr": "",
        }
        shown = {"object_tree": simulator.object_tree(), "inventory": held, "moves": moves}
        answer = {**answer, "info": info, **shown}
        session.info.update(answer)
        return answer
