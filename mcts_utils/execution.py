"""Replies executed in the real environment: the replays behind every record, and the check of written rows.

Chooses nothing and formats nothing; cleaning.py and records.py say what to execute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from mcts_utils.cleaning import EPSILON, earned
from mcts_utils.contracts import contract
from mcts_utils.conversation import action_of, is_signal
from mcts_utils.rollout import SessionPool, Stopped, replay, run_episode
from mcts_utils.rows import trajectories
from mcts_utils.types import Actor, EnvError, Environment, InputError, Step, Task


def sent(reply: str) -> str:
    """What of a reply decides what happens: its action, and whether a `wait` is a revision signal."""
    return "\0" if is_signal(reply, env_waits=True) else action_of(reply)


class Replayer:
    """Executes replies on one task, each distinct sequence of actions once; one instance per tree, one thread."""

    def __init__(
        self, pool: SessionPool, index: int, task_id: str, stopped: Callable[[], bool] = lambda: False
    ) -> None:
        """`index` is the server's index of the goal, `task_id` what must be there."""
        self._pool, self._index, self._task_id, self._stopped = pool, index, task_id, stopped
        self._known: dict[tuple[str, ...], tuple[Task, tuple[Step, ...]]] = {}
        self._sent = cache(sent)
        self.replays = 0
        self.env_steps = 0

    def __call__(self, replies: Sequence[str]) -> tuple[Step, ...]:
        """The steps that came back, up to the one that ended the episode."""
        return self.run(replies)[1]

    def run(self, replies: Sequence[str]) -> tuple[Task, tuple[Step, ...]]:
        """The task as its reset showed it, and the steps that came back.

        Raises:
            EnvError: when two sessions in a row failed.
            InputError: when the server's index is another goal than the tree's.
            Stopped: when the run is being stopped.
        """
        key = tuple(self._sent(reply) for reply in replies)
        if key not in self._known:
            if self._stopped():
                raise Stopped
            try:
                found = self._execute(replies)
            except EnvError:
                found = self._execute(
                    replies
                )  # a step is never sent again, a whole path from its reset may be
            self._known[key] = found
        task, steps = self._known[key]
        return task, tuple(
            step if step.reply == reply else replace(step, reply=reply)
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
        """The prefix and what the actor does behind it (`--repair 1`)."""
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
        return tuple(episode.steps)


def verify_rows(rows: Sequence[Mapping[str, Any]], env: Environment) -> dict[str, int]:
    """Execute every row again, from its messages alone, and count what comes back as it was written.

    Returns:
        rows, exact (rows without any difference that counts), observations and observations_exact (openings and last
        observations included), rewards and rewards_exact. Where an environment's texts vary between replays
        (ScienceWorld: temperatures, order of listings), only rewards count.

    Raises:
        InputError: naming the row (from 1) that lacks a field.
    """
    total: Counter[str] = Counter(rows=len(rows), exact=0)
    for number, row in enumerate(rows, start=1):
        try:
            checks = [_verify(row, side, turns, env) for side, turns in enumerate(trajectories(row))]
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"row {number}: a field is missing or wrong: {error!r}") from error
        fixed = contract(row["lineage"]["task"]["env"]).fixed_observations
        for observations, exact, same_reward in checks:
            total.update(
                observations=observations, observations_exact=exact, rewards=1, rewards_exact=same_reward
            )
        total["exact"] += all(same and (not fixed or texts == exact) for texts, exact, same in checks)
    return dict(total)


def _verify(
    row: Mapping[str, Any], side: int, turns: Sequence[Mapping[str, Any]], env: Environment
) -> tuple[int, int, bool]:
    """(observations written, of these exact, reward exact) of one conversation."""
    lineage = row["lineage"]
    suffix, reward = (("", "record"), ("_rejected", "rejected"))[side]
    written = [m["content"] for m in turns if m["role"] == "user"] + [
        lineage["replay"][f"final_observation{suffix}"]
    ]
    task, steps = replay(
        env, lineage["task"]["index"], [m["content"] for m in turns if m["role"] == "assistant"]
    )
    came = [task.opening] + [step.observation for step in steps]
    exact = sum(a == b for a, b in zip(written, came, strict=False))
    return len(written), exact, abs(earned(steps) - lineage["rewards"][reward]) < EPSILON
