"""The open ScienceWorld environments by id: what AgentGym's server answers to each request, as values. No HTTP.

An environment is a session with one simulator of the pool. One whose Java process ended, or that was idle for too long,
is unknown from then on, as after a restart of the server: a client creates another one and replays.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from mcts_utils.servers.sciworld.games import Game, games
from mcts_utils.servers.sciworld.pool import Pool
from mcts_utils.servers.sciworld.simulator import GameProcess, Lost

MOVES = 100  # more ticks than that end the episode: the package's envStepLimit
# What the public server says to a step before the first reset.
NOT_RESET = "'ScienceWorldEnv' object has no attribute 'variationIdx'"
LISTED = 10  # actions and objects that /state shows


class NotOpen(LookupError):
    """There is no environment to close."""


def stripped(text: str) -> str:
    """The action in a model's reply, as /step_visual reads it; /step takes its text as it is."""
    text = text.removesuffix("</s>")
    return text.split("Action:")[1].strip() if "Action:" in text else text


def _game(index: int) -> Game:
    if not -len(games()) <= index < len(games()):
        raise IndexError("list index out of range")  # the public server keeps a list
    return games()[index]


@dataclass
class OpenSession:
    """One open environment."""

    simulator: GameProcess
    used: float  # seconds of the store's clock
    info: dict[str, Any] = field(default_factory=lambda: {"deleted": False, "done": False})
    score: int = 0  # after the last step; a step's reward is the difference
    lock: threading.Lock = field(default_factory=threading.Lock)  # one request at a time


class Sessions:
    """All open environments. Safe to call from many threads; what a method raises is the answer's error text."""

    def __init__(self, pool: Pool, idle_seconds: float, clock: Callable[[], float]) -> None:
        self.pool, self.idle_seconds, self._clock = pool, idle_seconds, clock
        self._lock = threading.Lock()
        self._open: OrderedDict[int, OpenSession] = OrderedDict()  # least recently used first
        self._closed: set[int] = set()
        self._created = 0

    def create(self) -> dict[str, Any]:
        """A new environment, without a game."""
        self._close_idle()
        simulator = self.pool.simulator()
        with self._lock:
            number = self._created
            self._created += 1
            self._open[number] = OpenSession(simulator, self._clock())
        return {"id": number}

    def reset(self, number: int, index: int) -> dict[str, Any]:
        """Start the game with that index; negative ones count from the end, as in Python."""
        return self._with(number, lambda player: self._reset(player, index), finished_too=True)

    def step(self, number: int, action: str) -> dict[str, Any]:
        """Execute one action."""
        return self._with(number, lambda player: self._step(player, action)[0])

    def step_visual(self, number: int, reply: str) -> dict[str, Any]:
        """Execute the action in a reply, and show everything there is to see, valid actions as well (50 ms)."""
        return self._with(number, lambda player: self._step_visual(player, stripped(reply)))

    def replay(self, number: int, index: int, actions: Sequence[str]) -> dict[str, Any]:
        """Reset and actions in one request, up to the first step that ends the episode. Ours alone."""

        def play(player: OpenSession) -> dict[str, Any]:
            answer: dict[str, Any] = {"reset": self._reset(player, index), "steps": []}
            for action in actions:
                if player.info["done"]:
                    break
                answer["steps"].append(self._step(player, action)[0])
            return answer

        return self._with(number, play, finished_too=True)

    def observation(self, number: int) -> Any:
        """The last observation."""
        return self._with(number, lambda player: player.info["observation"])

    def detail(self, number: int) -> dict[str, Any]:
        """All fields of the last answers."""
        return self._with(number, lambda player: dict(player.info))

    def action_hint(self, number: int) -> dict[str, Any]:
        """Action templates and the objects in view."""
        return self._with(
            number,
            lambda player: {
                "possible_actions": player.simulator.possible_actions(),
                "possible_objects": player.simulator.possible_objects(),
            },
        )

    def show(self, number: int, field_name: str, getter: str) -> dict[str, Any]:
        """One text of the simulator's under that name."""
        return self._with(number, lambda player: {field_name: player.simulator.say(getter)[0]})

    def object_tree(self, number: int) -> dict[str, Any]:
        """The simulated world."""
        return self._with(number, lambda player: {"object_tree": player.simulator.object_tree()})

    def state(self, number: int) -> dict[str, Any]:
        """A summary of everything."""
        return self._with(number, self._state)

    def gold(self, index: int) -> dict[str, Any]:
        """Actions that reach score 100 in the game with that index. Ours alone; it takes a second or more."""
        game = _game(index)
        simulator = self.pool.simulator()
        try:
            return {"actions": simulator.gold_path(game)}
        finally:
            self.pool.release(simulator)

    def close(self, number: int) -> bool:
        """Close an environment; True.

        Raises:
            NotOpen: no such environment, or closed before.
        """
        with self._lock:
            player = self._open.pop(number, None)
            if player is None:
                raise NotOpen(number)
            self._closed.add(number)
        self.pool.release(player.simulator)
        return True

    def _with(self, number: int, call: Callable[[OpenSession], Any], finished_too: bool = False) -> Any:
        self._close_idle()
        with self._lock:
            player = self._player(number)
        with player.lock:
            if player.info["done"] and not finished_too:
                raise ValueError(f"The task with environment {number} has finished.")
            try:
                return call(player)
            except Lost:
                self._drop(number)
                raise LookupError(f"The id {number} is not valid.") from None

    def _player(self, number: int) -> OpenSession:
        if number in self._closed:
            raise ValueError(f"The task with environment {number} has been deleted.")
        if number not in self._open:
            raise ValueError(f"The id {number} is not valid.")
        player = self._open[number]
        player.used = self._clock()
        self._open.move_to_end(number)
        return player

    def _drop(self, number: int) -> None:
        with self._lock:
            player = self._open.pop(number, None)
        if player is not None:
            self.pool.release(player.simulator)

    def _close_idle(self) -> None:
        now = self._clock()
        idle = []
        with self._lock:
            for number, player in self._open.items():
                if now - player.used <= self.idle_seconds:
                    break
                idle.append(number)
        for number in idle:
            self._drop(number)

    def _reset(self, player: OpenSession, index: int) -> dict[str, Any]:
        game = _game(index)
        player.simulator.load(game)
        player.score = 0
        description = player.simulator.say("getTaskDescription")[0]
        turn, _ = self._step(player, "look around")
        answer = {
            "task_name": game.task,
            "var_num": game.variation,
            "task_description": description,
            "observation": turn["observation"],
            "reward": turn["reward"],
            "score": turn["score"],
            "deleted": False,
            "done": turn["done"],
        }
        player.info.update(answer)
        return answer

    def _step(self, player: OpenSession, action: str) -> tuple[dict[str, Any], int]:
        """The answer, and the moves so far."""
        if player.simulator.game is None:
            raise ValueError(NOT_RESET)
        turn = player.simulator.step(action)
        answer = {
            "observation": turn.observation,
            "reward": turn.score - player.score,
            "score": turn.score,
            "done": turn.completed or turn.moves > MOVES or turn.score < 0,
        }
        player.score = turn.score
        player.info.update(answer)
        return answer, turn.moves

    def _step_visual(self, player: OpenSession, action: str) -> dict[str, Any]:
        answer, moves = self._step(player, action)
        simulator, game = player.simulator, player.simulator.game
        assert game is not None
        look, held, task = simulator.say("freeActionLook", "freeActionInventory", "freeActionTaskDesc")
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
        player.info.update(answer)
        return answer

    def _state(self, player: OpenSession) -> dict[str, Any]:
        simulator = player.simulator
        getters = ("freeActionLook", "freeActionInventory", "getTaskDescription", "getGoalProgressStr")
        look, held, task, progress, moves = simulator.say(*getters, "getNumMoves")
        return {
            "observation": look,
            "inventory": held,
            "task_description": task,
            "goal_progress": progress,
            "possible_actions": simulator.possible_actions()[:LISTED],
            "possible_objects": simulator.possible_objects()[:LISTED],
            "current_moves": moves,
            "environment_info": dict(player.info),
        }
