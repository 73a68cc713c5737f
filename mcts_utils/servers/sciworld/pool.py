"""At most so many Java processes, started when needed, shared by all sessions. It knows no ids and no contract.

Simulators in one process do not disturb each other (simulator.py says why), and one takes a third of a megabyte, so a
few processes are enough; more of them let more steps run at once.
"""

from __future__ import annotations

import threading
from pathlib import Path

from mcts_utils.servers.sciworld.jvm import Jvm, Setup
from mcts_utils.servers.sciworld.simulator import GameProcess

SHARE = 8  # simulators in every running process before a further one is started
ROOM = 128  # simulators in one process at most


class Full(ValueError):
    """No process has room for another simulator."""


class Pool:
    """The processes. Safe to call from many threads."""

    def __init__(self, jvms: int, setup: Setup, jar: Path) -> None:
        self.most, self._how = jvms, (setup, jar)
        self._lock = threading.Lock()
        self._closed = False
        self.jvms: list[Jvm] = []

    def simulator(self) -> GameProcess:
        """A new simulator, without a task.

        Raises:
            Full: --jvms processes run, and all are full.
            Lost: the process ended just now.
            OSError: no process could be started.
        """
        with self._lock:
            if self._closed:
                raise Full("The server is closing.")
            jvm = self._place()
            jvm.simulators += 1
        try:
            return GameProcess(jvm)
        except BaseException:
            self._leave(jvm)
            raise

    def release(self, simulator: GameProcess) -> None:
        """Free the simulator's memory."""
        simulator.close()
        self._leave(simulator.jvm)

    def close(self) -> None:
        """End all processes and wait for them."""
        with self._lock:
            self._closed = True
            for jvm in self.jvms:
                jvm.close()
            self.jvms.clear()

    def _place(self) -> Jvm:
        for jvm in self.jvms:
            if not jvm.running():
                jvm.close()
        self.jvms = [jvm for jvm in self.jvms if not jvm.dead]
        emptiest = min(self.jvms, key=lambda jvm: jvm.simulators, default=None)
        if emptiest is None or (emptiest.simulators >= SHARE and len(self.jvms) < self.most):
            emptiest = Jvm(*self._how)
            self.jvms.append(emptiest)
        if emptiest.simulators >= ROOM:
            raise Full(f"There is no room for more than {ROOM * self.most} environments.")
        return emptiest

    def _leave(self, jvm: Jvm) -> None:
        with self._lock:
            jvm.simulators -= 1
