"""One ScienceWorld simulator inside a Java process that others share. It knows no ids and no contract.

Three things are global in the simulator's process; each is taken care of, so that sessions do not disturb each other:
- the random generator: seeded before each step with the game and the number of steps;
- the counter of object numbers: loading a game sets it back, so it is set forward again, and no game meets its own
  numbers twice;
- the iteration order of sets: fixed by a flag of the process (jvm.py, --reproducible) where that is wanted.
The package computes the valid actions inside every step; here they are asked for only where they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcts_utils.servers.sciworld.games import Game
from mcts_utils.servers.sciworld.jvm import Jvm
from mcts_utils.servers.sciworld.py4j_batch import JavaError, Ref, call, forget, new

NUMBERS = "util.UniqueIdentifier"
COMMANDS = ("help", "objects", "task")  # the simulator answers these outside its game
UNKNOWN = "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. "


class Lost(LookupError):
    """The process that held the simulator has ended."""


@dataclass(frozen=True, slots=True)
class GameReply:
    """What one action did."""

    observation: str
    score: int  # 0..100 for the episode so far; below 0 after a disaster
    completed: bool
    moves: int  # ticks of the simulated world, not steps


@contextmanager
def talking(jvm: Jvm) -> Iterator[None]:
    """Hold the process's lock; a failure that is not the simulator's own means that the process is no more.

    Raises:
        Lost: the process has ended.
        JavaError: the simulator raised.
    """
    with jvm.lock:
        if jvm.dead:
            raise Lost("the simulator's process has ended")
        try:
            yield
        except JavaError:
            raise
        except (OSError, ValueError) as error:  # a socket closed meanwhile raises ValueError
            jvm.dead = True
            jvm.process.kill()
            raise Lost(f"the simulator's process has ended: {error}") from error


class GameProcess:
    """One game at a time. Safe to call from many threads.

    Every method raises Lost if the process has ended, and JavaError with the simulator's text if it fails.
    """

    def __init__(self, jvm: Jvm) -> None:
        self.jvm = jvm
        self.game: Game | None = None
        self._steps = 0
        self._last = (0, False)  # score and completed
        self._interface: Ref | None = None
        with talking(jvm):
            self._server: Ref = jvm.wire.ask(new("scienceworld.runtime.pythonapi.PythonInterface"))[0]
            jvm.wire.ask(self._forget_tasks())

    def variations(self, task: str) -> int:
        """Number of variations of a task."""
        with talking(self.jvm):
            maker = self.jvm.wire.ask(new("scienceworld.tasks.TaskMaker1"))[0]
            return self.jvm.wire.ask(call(maker, "getMaxVariations", task), forget(maker))[0]

    def load(self, game: Game) -> None:
        """Start a game."""
        with talking(self.jvm):
            self._load(game, False)
            option = self.jvm.wire.ask(call(self._server, "agentInterface"))[0]
            self._interface = self.jvm.wire.ask(call(option, "get"), forget(option))[0]
        self.game, self._steps, self._last = game, 0, (0, False)

    def gold_path(self, game: Game) -> list[str]:
        """Actions that reach score 100 in that game, as the package computes them, in a second or more."""
        with talking(self.jvm):
            self._load(game, True)
            return self._lines("getGoldActionSequence")

    def step(self, action: str) -> GameReply:
        """Execute one action."""
        assert self.game is not None and self._interface is not None
        ask, moves_so_far = self.jvm.wire.ask, call(self._interface, "getCurIterations")
        with talking(self.jvm):
            if action.strip().lower() in COMMANDS:
                observation, moves = ask(call(self._server, "step", action), moves_so_far)
                score, completed = self._last
            else:
                seed = call(self.jvm.random, "setSeed", self.game.variation * 1009 + self._steps)
                result = ask(seed, call(self._interface, "step", action))[1]
                parts = (call(result, part) for part in ("_1", "_2", "_3"))
                observation, fraction, completed, moves, _ = ask(*parts, moves_so_far, forget(result))
                score = round(100 * fraction)
        self._steps += 1
        self._last = (score, completed)
        return GameReply(observation or UNKNOWN, score, completed, moves)

    def valid_actions(self) -> list[str]:
        """All actions that do something now, sorted. Some 50 ms."""
        with talking(self.jvm):
            return self._lines("getValidActionObjectCombinations")

    def possible_actions(self) -> list[str]:
        """The action templates."""
        with talking(self.jvm):
            return self._lines("getPossibleActions")

    def possible_objects(self) -> list[str]:
        """Names of the objects in view."""
        with talking(self.jvm):
            return self._lines("getPossibleObjects")

    def object_tree(self) -> Any:
        """The simulated world as nested objects."""
        with talking(self.jvm):
            text = self.jvm.wire.ask(call(self._server, "getObjectTree", ""))[0]
        return json.loads(text)

    def say(self, *getters: str) -> list[Any]:
        """What methods without arguments of the simulator's interface give."""
        with talking(self.jvm):
            return self.jvm.wire.ask(*(call(self._server, getter) for getter in getters))

    def close(self) -> None:
        """Free its memory; a process that has ended has freed it."""
        try:
            with talking(self.jvm):
                held = [thing for thing in (self._server, self._interface) if thing is not None]
                self.jvm.wire.ask(*map(forget, held))
        except (Lost, JavaError):
            pass

    def _load(self, game: Game, gold: bool) -> None:
        ask = self.jvm.wire.ask
        if self._interface is not None:
            ask(forget(self._interface))
            self._interface = None
        before = ask(call(NUMBERS, "count"))[0]
        loaded = call(self._server, "load", game.task, game.variation, "", gold)
        problem, _, after = ask(loaded, self._forget_tasks(), call(NUMBERS, "count"))
        ask(call(NUMBERS, "count_$eq", max(before, after)))
        if problem:
            raise JavaError(problem)

    def _forget_tasks(self) -> str:
        # All objects of all tasks, 9 MB a simulator; loading makes them anew, and nothing else needs them.
        return call(self._server, "taskMaker_$eq", None)

    def _lines(self, getter: str) -> list[str]:
        # Joined over there: one request for the whole list.
        listed = self.jvm.wire.ask(call(self._server, getter))[0]
        text = self.jvm.wire.ask(call("java.lang.String", "join", "\n", listed), forget(listed))[0]
        return text.split("\n") if text else []
