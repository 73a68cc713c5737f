"""What a step of an environment of yours costs: in its own process, and over HTTP as the stages take it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

from mcts_utils.bench.table import Figures
from mcts_utils.envs import make_environment
from mcts_utils.envs.own_server import own_server
from mcts_utils.servers.yours.source import name_of
from mcts_utils.servers.yours.world import Session, World

SOURCE = f"{__name__}:Counter"
STEPS = 500


class Counter:
    """An environment whose own work is next to nothing."""

    def reset(self, index: int) -> str:
        """Begin at 0."""
        self.count = index * 0
        return "Count."

    def step(self, action: str) -> tuple[str, float, bool]:
        """Count one more."""
        self.count += 1
        return f"You are at {self.count}.", 0.0, False


def step_cost() -> Figures:
    """Return the milliseconds of a step in-process and over HTTP."""
    session = Session(World(SOURCE))
    session.reset(0)
    with own_server(SOURCE) as server, closing(make_environment(name_of(SOURCE), server.url)) as env:
        env.reset(0)
        return {"step_ms_in_process": milliseconds(session.step), "step_ms_http": milliseconds(env.step)}


def milliseconds(step: Callable[[str], Any]) -> float:
    """Return the time of one of STEPS steps."""
    began = time.perf_counter()
    for _ in range(STEPS):
        step("count")
    return round(1000 * (time.perf_counter() - began) / STEPS, 4)
