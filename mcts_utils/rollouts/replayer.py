"""Execute replies on one task, each distinct sequence of actions once. It chooses nothing and formats nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial

from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import action_of, is_signal
from mcts_utils.rollouts.episode import replay, run_episode
from mcts_utils.types import Actor, EnvError, InputError, Step, Stopped, Task


def action_key(reply: str, form: str = "any") -> str:
    """Return what of a reply decides its result: the action, or a mark for a revision signal."""
    return "\0" if is_signal(reply, True, form) else action_of(reply, form)


class Replayer:
    """Executes replies on one task, each distinct sequence of actions once. One instance per tree, one thread."""

    def __init__(
        self,
        pool: SessionPool,
        index: int,
        task_id: str,
        stopped: Callable[[], bool] = lambda: False,
        form: str = "any",
    ) -> None:
        """Replay the goal that the server has at `index`, whose task id must be `task_id`.

        `form`: how actions are read from replies, the same as that of the pool's sessions.
        """
        self._pool, self._index, self._task_id, self._stopped = pool, index, task_id, stopped
        self._known: dict[tuple[str, ...], tuple[Task, tuple[Step, ...]]] = {}  # by action keys
        self._action_key = cache(partial(action_key, form=form))
        self.cuts: dict[str, str] = {}  # reply -> Step.cut, of those that have one
        self.replays = 0
        self.env_steps = 0

    def __call__(self, replies: Sequence[str]) -> tuple[Step, ...]:
        """Return the executed steps, up to the one that ended the episode."""
        return self.run(replies)[1]

    def run(self, replies: Sequence[str]) -> tuple[Task, tuple[Step, ...]]:
        """Return the task as its reset showed it, and the executed steps.

        Raises:
            EnvError: if two sessions in a row failed.
            InputError: if the server's index is another goal than the tree's.
            Stopped: if the run is being stopped.
        """
        key = tuple(self._action_key(reply) for reply in replies)
        if key not in self._known:
            if self._stopped():
                raise Stopped
            try:
                found = self._execute(replies)
            except EnvError:
                # A step is never sent again; a whole path from its reset may be.
                found = self._execute(replies)
            self._known[key] = found
        task, steps = self._known[key]
        return task, tuple(
            replace(step, reply=reply, cut=self.cuts.get(reply, ""))
            for step, reply in zip(steps, replies, strict=False)
        )

    def _execute(self, replies: Sequence[str]) -> tuple[Task, tuple[Step, ...]]:
        with self._pool.session() as env:
            task, steps = replay(env, self._index, replies)
        if task.id != self._task_id:
            raise InputError(
                f"the server's index {self._index} is the task {task.id}, the tree's is {self._task_id}"
            )
        self.replays += 1
        self.env_steps += len(steps)
        return task, tuple(steps)

    def resume(
        self, actor: Actor, prefix: Sequence[Step], prompt: str, max_steps: int, temperature: float, seed: int
    ) -> tuple[Step, ...]:
        """Replay the prefix, let the actor continue for at most `max_steps`, and return all steps (`--repair 1`)."""
        with self._pool.session() as env:
            episode = run_episode(
                actor,
                env,
                self._index,
                prompt=prompt,
                max_steps=max_steps,
                temperature=temperature,
                seed=seed,
                prefix=prefix,
                stopped=self._stopped,
            )
        self.replays += 1
        self.env_steps += len(episode.steps)
        self.cuts.update({step.reply: step.cut for step in episode.steps if step.cut})
        return tuple(episode.steps)
