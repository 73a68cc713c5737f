"""One ScienceWorld simulator in a Java process that others share. It knows no session ids and no HTTP.

Three things are global in a Java process; each is handled here, so that simulators do not disturb each other:
- the random generator: seeded before each step with the game's variation and the number of steps;
- the counter of object numbers: loading a game resets it, so it is set forward again, and no number is used twice;
- the iteration order of sets: fixed by a flag of the process (jvm.py, --reproducible) where that is wanted.
The package computes the valid actions in every step; here they are computed only when they are shown.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcts_utils.servers.sciworld.games import Game
from mcts_utils.servers.sciworld.jvm import Jvm
from mcts_utils.servers.sciworld.py4j_batch import JavaError, Ref, call, new, release

NUMBERS = "util.UniqueIdentifier"  # the Java object that counts object numbers
COMMANDS = ("help", "objects", "task")  # answered by the simulator outside the game
UNKNOWN = "Unknown action.  Type 'help' for a list of actions, and 'objects' for a list of possible object referents. "


class Lost(LookupError):
    """The Java process of the simulator has ended."""


@dataclass(frozen=True, slots=True)
class GameReply:
    """The result of one action."""

    observation: str
    score: int  # of the episode so far, 0..100; below 0 after a fatal action
    completed: bool
    moves: int  # ticks of the simulated world so far, not steps


@contextmanager
def exchange(jvm: Jvm) -> Iterator[None]:
    """Hold the process's lock; on an error other than the simulator's own, mark the process as dead and kill it.

    Raises:
        Lost: the process has ended.
        JavaError: the simulator raised an exception.
    """
    with jvm.lock:
        if jvm.dead:
            raise Lost("the simulator's process has ended")
        try:
            yield
        except JavaError:
            raise
        except (OSError, ValueError) as error:  # a socket that was closed meanwhile raises ValueError
            jvm.dead = True
            jvm.process.kill()
            raise Lost(f"the simulator's process has ended: {error}") from error


class GameSimulator:
    """A simulator with one game at a time. Safe to call from many threads.

    Every method but `close` raises Lost if the process has ended, and JavaError with the simulator's text if it fails.
    """

    def __init__(self, jvm: Jvm) -> None:
        self.jvm = jvm
        self.game: Game | None = None
        self._steps = 0
        self._last = (0, False)  # score and completed of the last step
        self._interface: Ref | None = None
        with exchange(jvm):
            self._server: Ref = jvm.connection.ask(new("scienceworld.runtime.pythonapi.PythonInterface"))[0]
            jvm.connection.ask(self._drop_tasks())

    def variations(self, task: str) -> int:
        """Return the number of variations of a task."""
        with exchange(self.jvm):
            task_maker = self.jvm.connection.ask(new("scienceworld.tasks.TaskMaker1"))[0]
            count = call(task_maker, "getMaxVariations", task)
            return self.jvm.connection.ask(count, release(task_maker))[0]

    def load(self, game: Game) -> None:
        """Start a game."""
        with exchange(self.jvm):
            self._load(game, False)
            option = self.jvm.connection.ask(call(self._server, "agentInterface"))[0]
            self._interface = self.jvm.connection.ask(call(option, "get"), release(option))[0]
        self.game, self._steps, self._last = game, 0, (0, False)

    def gold_path(self, game: Game) -> list[str]:
        """Return actions that reach score 100 in that game, from the package; it takes a second or more.

        It loads the game, so call `load` before the next step.
        """
        with exchange(self.jvm):
            self._load(game, True)
            return self._lines("getGoldActionSequence")

    def step(self, action: str) -> GameReply:
        """Execute one action."""
        assert self.game is not None and self._interface is not None
        ask, moves_so_far = self.jvm.connection.ask, call(self._interface, "getCurIterations")
        with exchange(self.jvm):
            if action.strip().lower() in COMMANDS:
                observation, moves = ask(call(self._server, "step", action), moves_so_far)
                score, completed = self._last
            else:
                seed = call(self.jvm.random, "setSeed", self.game.variation * 1009 + self._steps)
                result = ask(seed, call(self._interface, "step", action))[1]
                parts = (call(result, part) for part in ("_1", "_2", "_3"))
                observation, fraction, completed, moves, _ = ask(*parts, moves_so_far, release(result))
                score = round(100 * fraction)
        self._steps += 1
        self._last = (score, completed)
        return GameReply(observation or UNKNOWN, score, completed, moves)

    def valid_actions(self) -> list[str]:
        """Return all actions that have an effect now, sorted; it takes some 50 ms."""
        with exchange(self.jvm):
            return self._lines("getValidActionObjectCombinations")

    def possible_actions(self) -> list[str]:
        """Return the action templates."""
        with exchange(self.jvm):
            return self._lines("getPossibleActions")

    def possible_objects(self) -> list[str]:
        """Return the names of the objects in view."""
        with exchange(self.jvm):
            return self._lines("getPossibleObjects")

    def object_tree(self) -> Any:
        """Return the simulated world as nested JSON values."""
        with exchange(self.jvm):
            text = self.jvm.connection.ask(call(self._server, "getObjectTree", ""))[0]
        return json.loads(text)

    def read(self, *getters: str) -> list[Any]:
        """Return the results of methods of the simulator's interface that take no arguments."""
        with exchange(self.jvm):
            return self.jvm.connection.ask(*(call(self._server, getter) for getter in getters))

    def close(self) -> None:
        """Free the simulator's memory; does nothing if the process has ended."""
        try:
            with exchange(self.jvm):
                held = [ref for ref in (self._server, self._interface) if ref is not None]
                self.jvm.connection.ask(*map(release, held))
        except (Lost, JavaError):
            pass

    def _load(self, game: Game, gold: bool) -> None:
        ask = self.jvm.connection.ask
        if self._interface is not None:
            ask(release(self._interface))
            self._interface = None
        before = ask(call(NUMBERS, "count"))[0]
        load = call(self._server, "load", game.task, game.variation, "", gold)
        problem, _, after = ask(load, self._drop_tasks(), call(NUMBERS, "count"))
        ask(call(NUMBERS, "count_$eq", max(before, after)))
        if problem:
            raise JavaError(problem)

    def _drop_tasks(self) -> str:
        # Frees the objects of all tasks, 9 MB a simulator; loading makes new ones, and nothing else needs them.
        return call(self._server, "taskMaker_$eq", None)

    def _lines(self, getter: str) -> list[str]:
        # Joined in Java, so that one request returns the whole list.
        listed = self.jvm.connection.ask(call(self._server, getter))[0]
        text = self.jvm.connection.ask(call("java.lang.String", "join", "\n", listed), release(listed))[0]
        return text.split("\n") if text else []
