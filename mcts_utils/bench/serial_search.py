"""The serial search, a baseline: one request in flight, and every candidate executed by reset and replay.

It is a simulator for the same search (search.mcts), so nothing else differs. The public reference works like this, and
also requests the candidates one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random

from mcts_utils.config import Settings
from mcts_utils.prompts import acting_messages, action_of
from mcts_utils.replies import Reply, read_reply
from mcts_utils.rollouts.episode import derive_seed, take_step
from mcts_utils.search.mcts import Rules, run_search
from mcts_utils.search.tree import Tree, new_tree
from mcts_utils.types import Actor, Environment, Step


class SerialSimulator:
    """An implementation of the protocols of search.mcts for one task at a time and N_ROLLOUT=0."""

    def __init__(self, settings: Settings, actor: Actor, env: Environment, one_by_one: bool) -> None:
        """Create a simulator without a task.

        Args:
            settings: of the search; N_ROLLOUT is 0.
            actor: answers the requests.
            env: a session with the environment.
            one_by_one: send a request for every candidate, as the reference does.
        """
        self._settings, self._actor, self._env, self._one_by_one = settings, actor, env, one_by_one
        self._number = 0
        self._executed: dict[tuple[str, ...], Step] = {}
        self.calls = self.env_steps = 0

    def search_task(self, index: int) -> Tree:
        """Search one task and return its tree."""
        s = self._settings
        tree = new_tree(self._env.reset(index), {}, s.prompt, s.seed)
        self._task = tree.task
        for _ in run_search(tree, s.itera, Rules(s.n_gen, 0, s.max_depth, s.uct_c), Random, self):
            pass
        return tree

    @contextmanager
    def iteration(self, number: int) -> Iterator[SerialSimulator]:
        self._number, self._executed = number, {}
        yield self

    def sample(self, path: Sequence[Step], n: int) -> list[Reply]:
        """Sample `n` candidates, and execute each of them."""
        messages = acting_messages(self._task, path, self._settings.prompt)
        seed = derive_seed(self._settings.seed, self._task.index, self._number, len(path))
        sizes = [1] * n if self._one_by_one else [n]
        samples = []
        for number, size in enumerate(sizes):
            samples += self._actor.sample(messages, size, self._settings.temp, seed + number)
        self.calls += len(sizes)
        replies = [read_reply(sample.text) for sample in samples]
        for reply in replies:
            self._replay(path, reply.text)
        return replies

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """Return the step that `sample` executed; execute it again if it was sampled in an earlier iteration."""
        actions = (*(step.action for step in path), action_of(reply))
        return self._executed.get(actions) or self._replay(path, reply)

    def rollouts(
        self, path: Sequence[Step], k: int, max_steps: int | None = None
    ) -> list[tuple[Step, ...] | None]:
        """Raise NotImplementedError; N_ROLLOUT=0 needs no rollouts."""
        raise NotImplementedError

    def counts(self) -> Mapping[str, int]:
        return {}

    def _replay(self, path: Sequence[Step], reply: str) -> Step:
        """Reset, execute the steps of the path one by one, then execute the candidate and return its step."""
        self._env.reset(self._task.index)
        score = 0.0
        for text in [*(step.reply for step in path), reply]:
            step = take_step(self._env, text, score)
            score = step.reward
            self.env_steps += 1
        self._executed[(*(step.action for step in path), step.action)] = step
        return step
