"""A scripted actor for TextCraft that plans well and slips at random, by seed. No model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from mcts_utils.prompts import action_of, reply_text
from mcts_utils.servers.textcraft.planner import NoPlan, Planner
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.types import Actor, Message, Sample


class NoisyPlayer(Actor):
    """Plays the planner's next action, or with probability `slip` one of the listed commands or a needless look."""

    def __init__(self, slip: float = 0.3, before: Callable[[], None] = lambda: None) -> None:
        self.slip = slip
        self.before = before  # called in every request, so that a test can watch or stop them

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Actor.sample."""
        self.before()
        options, best = self._position(messages)
        samples = []
        for i in range(n):
            rng = Random(f"{seed}:{i}")
            action = rng.choice(options) if rng.random() < self.slip else best
            samples.append(Sample(reply_text("next", action), 0 if i else 100, 10))
        return samples

    def _position(self, messages: Sequence[Message]) -> tuple[list[str], str]:
        opening = messages[1].content
        commands = [line for line in opening.splitlines() if line.startswith("craft ")]
        goal = re.search(r"Goal: craft (.*)\.", opening)
        assert goal is not None
        item = goal.group(1).replace(" ", "_")
        game = Session(load_world(), item)
        for message in messages[2:]:
            if message.role == "assistant":
                game.step(action_of(message.content))
        try:
            best = Planner(load_world(), item, commands).plan(game.inventory)[0].command
        except NoPlan:
            best = "inventory"
        return [*commands, "inventory"], best
