"""The serial way, to compare with: one request in flight, and every candidate executed by reset and replay.

It is a simulator for the same search (search.Simulator), so that nothing else differs. What the public reference does,
which besides asks for the candidates one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random

from mcts_utils.config import Settings
from mcts_utils.prompts import acting_messages, action_of
from mcts_utils.rollouts.episode import derive_seed, take_step
from mcts_utils.search.mcts import Rules, search
from mcts_utils.search.tree import Tree, new_tree
from mcts_utils.types import Actor, Environment, Step


class SerialWay:
    """search.Simulator and search.Explorer of one task, for N_ROLLOUT=0."""

    def __init__(self, settings: Settings, actor: Actor, env: Environment, one_by_one: bool) -> None:
        """`one_by_one`: a request for every candidate."""
        self._settings, self._actor, self._env, self._one_by_one = settings, actor, env, one_by_one
        self._number = 0
        self._executed: dict[tuple[str, ...], Step] = {}
        self.calls = self.env_steps = 0

    def tree(self, index: int) -> Tree:
        """Search one task."""
        s = self._settings
        tree = new_tree(self._env.reset(index), {}, s.prompt, s.seed)
        self._task = tree.task
        for _ in search(tree, s.itera, Rules(s.n_gen, 0, s.max_depth, s.uct_c), Random, self):
            pass
        return tree

    @contextmanager
    def iteration(self, number: int) -> Iterator[SerialWay]:
        """See search.Simulator."""
        self._number, self._executed = number, {}
        yield self

    def sample(self, path: Sequence[Step], n: int) -> list[tuple[str, str]]:
        """See search.Explorer. Every candidate is executed at once."""
        messages = acting_messages(self._task, path, self._settings.prompt)
        seed = derive_seed(self._settings.seed, self._task.index, self._number, len(path))
        sizes = [1] * n if self._one_by_one else [n]
        samples = []
        for number, size in enumerate(sizes):
            samples += self._actor.sample(messages, size, self._settings.temp, seed + number)
        self.calls += len(sizes)
        replies = [sample.text.strip() for sample in samples]
        for reply in replies:
            self._replayed(path, reply)
        return [(reply, action_of(reply)) for reply in replies]

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """See search.Explorer: known from `sample`, unless it was sampled in an earlier iteration."""
        return self._executed.get((*(step.action for step in path), action_of(reply))) or self._replayed(
            path, reply
        )

    def rollouts(self, path: Sequence[Step], k: int) -> list[tuple[Step, ...] | None]:
        """Never called with N_ROLLOUT=0."""
        raise NotImplementedError

    def counts(self) -> Mapping[str, int]:
        """See search.Explorer."""
        return {}

    def _replayed(self, path: Sequence[Step], reply: str) -> Step:
        """Reset, one request for every step of the path, and the candidate."""
        self._env.reset(self._task.index)
        score = 0.0
        for text in [*(step.reply for step in path), reply]:
            step = take_step(self._env, text, score)
            score = step.reward
            self.env_steps += 1
        self._executed[(*(step.action for step in path), step.action)] = step
        return step
