"""A small environment in memory with stairs to climb, and an actor that gives its actions in order."""

from __future__ import annotations

from collections.abc import Sequence

from mcts_utils.prompts import reply_text
from mcts_utils.types import Actor, Environment, Message, Sample, Step, StepResult, Task


class Stairs(Environment):
    """An environment of `height` steps `up`; `fall` is a disaster. Counts what happens to it."""

    opened: list[Stairs] = []

    def __init__(self, height: int = 3) -> None:
        self.height, self.level, self.resets, self.steps, self.closed = height, 0, 0, 0, 0
        self.opened.append(self)

    def reset(self, index: int) -> Task:
        self.level, self.resets = 0, self.resets + 1
        return Task("textcraft", index, f"stairs:{index}", f"Goal: climb {index}.")

    def step(self, action: str) -> StepResult:
        self.steps += 1
        if action == "fall":
            return StepResult("You fell.", -1.0, True, disaster=True)
        self.level += action == "up"
        return StepResult(f"level {self.level}", self.level / self.height, self.level == self.height)

    def close(self) -> None:
        self.closed += 1


class Climber(Actor):
    """An actor that gives its actions by the number of steps taken; remembers what it saw."""

    def __init__(self, *actions: str) -> None:
        self.actions = actions
        self.seen: list[list[Message]] = []
        self.seeds: list[int | None] = []

    def sample(self, messages: Sequence[Message], n=1, temperature=1.0, seed=None) -> list[Sample]:
        self.seen.append(list(messages))
        self.seeds.append(seed)
        taken = len(messages) // 2 - 1
        return [Sample(f"  {reply_text('t', self.actions[taken % len(self.actions)])}\n", 7, 3)] * n


def up(n: int) -> list[Step]:
    return [Step(reply_text("t", "up"), "up", f"level {i + 1}", (i + 1) / 3, i == 2) for i in range(n)]
