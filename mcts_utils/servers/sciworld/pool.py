"""A pool of Java processes, started when needed and shared by all sessions. It knows no ids and no HTTP.

Simulators in one process do not disturb each other (see simulator.py), and one takes a third of a megabyte, so a few
processes are enough; more processes let more steps run at once.
"""

from __future__ import annotations

import threading
from pathlib import Path

from mcts_utils.servers.sciworld.jvm import Jvm, Setup
from mcts_utils.servers.sciworld.simulator import GameSimulator
from mcts_utils.servers.session_store import Full

SPREAD = 8  # simulators in every running process before another process is started
CAPACITY = 128  # simulators in one process, at most


class Pool:
    """The processes. Safe to call from many threads."""

    def __init__(self, max_jvms: int, setup: Setup, jar: Path) -> None:
        """Create a pool of at most `max_jvms` processes; none is started yet."""
        self._max_jvms, self._setup, self._jar = max_jvms, setup, jar
        self._lock = threading.Lock()
        self._closed = False
        self.jvms: list[Jvm] = []

    def simulator(self) -> GameSimulator:
        """Return a new simulator, without a game.

        Raises:
            Full: all processes are full and no more may be started, or the pool is closed.
            Lost: the process has just ended.
            OSError: no process could be started.
        """
        with self._lock:
            if self._closed:
                raise Full("The server is closing.")
            jvm = self._least_used()
            jvm.simulators += 1
        try:
            return GameSimulator(jvm)
        except BaseException:
            self._decrement(jvm)
            raise

    def release(self, simulator: GameSimulator) -> None:
        """Free the simulator's memory."""
        simulator.close()
        self._decrement(simulator.jvm)

    def close(self) -> None:
        """End all processes and wait for them."""
        with self._lock:
            self._closed = True
            for jvm in self.jvms:
                jvm.close()
            self.jvms.clear()

    def _least_used(self) -> Jvm:
        """Return the process with the fewest simulators; start one if all running ones have SPREAD or more."""
        for jvm in self.jvms:
            if not jvm.running():
                jvm.close()
        self.jvms = [jvm for jvm in self.jvms if not jvm.dead]
        emptiest = min(self.jvms, key=lambda jvm: jvm.simulators, default=None)
        if emptiest is None or (emptiest.simulators >= SPREAD and len(self.jvms) < self._max_jvms):
            emptiest = Jvm(self._setup, self._jar)
            self.jvms.append(emptiest)
        if emptiest.simulators >= CAPACITY:
            raise Full(f"There is no room for more than {CAPACITY * self._max_jvms} environments.")
        return emptiest

    def _decrement(self, jvm: Jvm) -> None:
        with self._lock:
            jvm.simulators -= 1
