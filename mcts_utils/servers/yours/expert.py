"""Play an environment of yours by its own `expert(index)`, with slips, for the mock LLM.

A task is recognised by its opening, so tasks that open alike are played as the first of them. It also answers the
judge's question: Bad for an action that is not the next one of the plan.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mcts_utils.servers.transcript import CURRENT, LOGGED, turns, verdict
from mcts_utils.servers.yours.source import SourceError
from mcts_utils.servers.yours.world import Session, World

MOST_TASKS = 2000  # that are known; without a split, the first ones
LOG = "\n\nLog:\n"  # after the opening in the judge's question


class Expert:
    """The plans of an environment's tasks, by opening."""

    def __init__(self, source: str) -> None:
        """Reset every task once; raise SourceError if the environment cannot be loaded, or has no `expert`."""
        world = World(source)
        if "expert" not in world.offers:
            raise SourceError(f"{source}: it has no expert(index), so nobody can play it")
        session = Session(world)
        self._plans: dict[str, list[str]] = {}
        listed = [index for ids in (world.split or {"": list(range(MOST_TASKS))}).values() for index in ids]
        for index in listed[:MOST_TASKS]:
            self._plans.setdefault(session.reset(index), world.expert(index))
        self._actions = sorted({action for plan in self._plans.values() for action in plan})

    def answer(self, messages: list[dict], rng: random.Random, noise: float) -> str:
        """Return the reply to a conversation; with probability `noise` a slip, or a random verdict."""
        for number, message in enumerate(messages):
            opening, judged, question = message["content"].partition(LOG)
            if message["role"] == "user" and opening in self._plans:
                plan = self._plans[opening]
                if judged:
                    return _verdict(plan, question, rng, noise)
                return self._move(plan, [action for action, _ in turns(messages[number + 1 :])], rng, noise)
        return "Thought: I do not know this task.\nAction: look"

    def _move(self, plan: Sequence[str], done: Sequence[str], rng: random.Random, noise: float) -> str:
        if rng.random() < noise:
            return f"Thought: I will try this now.\nAction: {rng.choice(self._actions)}"
        left = remaining(plan, done)
        return f"Thought: {len(left)} steps are left.\nAction: {left[0] if left else 'look'}"


def remaining(plan: Sequence[str], done: Sequence[str]) -> list[str]:
    """Return what is left of a plan after actions, of which those out of turn count for nothing."""
    left = list(plan)
    for action in done:
        if left and action == left[0]:
            left.pop(0)
    return left


def _verdict(plan: Sequence[str], question: str, rng: random.Random, noise: float) -> str:
    current = CURRENT.search(question)
    left = remaining(plan, [action for action, _ in LOGGED.findall(question)])
    good = current is not None and bool(left) and current[1] == left[0]
    reason = f"This is {'' if good else 'not '}the next step of the plan."
    return verdict("Good" if good else "Bad", reason, rng, noise)
