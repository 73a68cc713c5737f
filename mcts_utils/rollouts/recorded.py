"""An actor and environment sessions whose answers pass through a journal (storage/journal.py).

What an earlier process of this job was answered is taken from there; all else is asked, and kept before it is used.
Servers that can copy sessions answer the same in the same state, also after a restart, so their steps are executed
again. Other servers may not, so their recorded answers are used, and the session is brought to its state only where the
record ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.storage.journal import Journal
from mcts_utils.types import Actor, EnvError, Environment, Message, Sample, StepResult, Task

T = TypeVar("T")
ATTEMPTS = 3  # to bring a session to where the record ends; only ScienceWorld needs more than one


class RecordGone(EnvError):
    """A world did not come back as it was recorded; the record is removed."""


def anew_without_record(job: Callable[..., T], *args: Any) -> T:
    """Do a job; do it once more if its record was of no use."""
    try:
        return job(*args)
    except RecordGone:
        return job(*args)


class RecordedActor(Actor):
    """An actor whose answers to one job are kept."""

    def __init__(self, actor: Actor, journal: Journal, name: str = "") -> None:
        """`name`: under which what was paid is counted; empty for the actor."""
        self._actor, self._journal, self._name = actor, journal, name

    def sample(
        self, messages: Sequence[Message], n: int = 1, temperature: float = 1.0, seed: int | None = None
    ) -> list[Sample]:
        """Return the kept answer to this request, or the actor's."""
        request = [self._name, messages, n, temperature, seed]
        found = self._journal.take(list[Sample], request)
        if found is None:
            found = self._actor.sample(messages, n, temperature, seed)
            paid = {
                "calls": 1,
                "prompt_tokens": sum(sample.prompt_tokens for sample in found),
                "completion_tokens": sum(sample.completion_tokens for sample in found),
            }
            self._journal.add(request, found, {self._name: paid})
        return found

    def knows(self, messages: Sequence[Message], n: int, temperature: float, seed: int | None) -> bool:
        """Return True if an earlier process paid for the answer to this request."""
        return self._journal.knows([self._name, messages, n, temperature, seed])


class RecordedPool(SessionPool):
    """The sessions of a pool for one job, with their answers kept where the server cannot copy sessions."""

    def __init__(self, pool: SessionPool, journal: Journal) -> None:
        self._pool, self._journal = pool, journal
        self.shared, self.limited = pool.shared, pool.limited

    def take(self, stopped: Callable[[], bool] = lambda: False) -> Environment:
        env = self._pool.take(stopped)
        try:
            return env if "fork" in env.extensions else RecordedSession(env, self._journal)
        except BaseException:
            self._pool.drop(env)
            raise

    def give(self, env: Environment) -> None:
        self._pool.give(env.env if isinstance(env, RecordedSession) else env)

    def drop(self, env: Environment) -> None:
        self._pool.drop(env.env if isinstance(env, RecordedSession) else env)

    def close(self) -> None:
        """Do nothing: the sessions are the pool's."""


class RecordedSession(Environment):
    """One session. It executes nothing as long as the record says what comes back."""

    def __init__(self, env: Environment, journal: Journal) -> None:
        self.env, self._journal = env, journal
        self.place = ""  # of its user among those of the job who may do the same at the same time
        self._episodes = 0
        self._task: Task | None = None
        self._past: list[tuple[str, StepResult]] = []  # actions of the episode and their answers
        self._behind = False  # the real session has not executed them

    @property
    def waits(self) -> bool:
        return self.env.waits

    @property
    def session_bound_tasks(self) -> bool:
        return self.env.session_bound_tasks

    @property
    def extensions(self) -> frozenset[str]:
        return self.env.extensions

    @property
    def action_format(self) -> str:
        return self.env.action_format

    def reset(self, index: int) -> Task:
        self._begin()
        self._task = self._recorded(Task, ["reset", index], lambda: self.env.reset(index))
        return self._task

    def replay(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        """Start a task and execute actions, as envs.client.AgentGym does where the server offers it."""
        self._begin()
        env: Any = self.env
        kind = tuple[Task, list[StepResult]]
        request = ["replay", index, list(actions)]
        self._task, results = self._recorded(kind, request, lambda: env.replay(index, actions))
        self._past = list(zip(actions, results, strict=False))
        return self._task, results

    def step(self, action: str) -> StepResult:
        def execute() -> StepResult:
            if self._behind:
                self._catch_up()
            return self.env.step(action)

        request = ["step", [taken for taken, _ in self._past], action]
        result = self._recorded(StepResult, request, execute)
        self._past.append((action, result))
        return result

    def close(self) -> None:
        self.env.close()

    def _begin(self) -> None:
        self._episodes, self._task, self._past = self._episodes + 1, None, []

    def _recorded(self, kind: Any, request: list[Any], execute: Callable[[], T]) -> T:
        request = [self.place, self._episodes, *request]
        found = self._journal.take(kind, request)
        behind = found is not None
        if found is None:
            found = execute()
            self._journal.add(request, found)
        self._behind = behind
        return found

    def _catch_up(self) -> None:
        """Bring the real session to where the record ends; raise RecordGone if it does not get there."""
        assert self._task is not None
        task, expected = self._task, [(result.reward, result.done) for _, result in self._past]
        env: Any = self.env
        for _ in range(ATTEMPTS):
            if expected and "replay" in env.extensions:
                seen, results = env.replay(task.index, [action for action, _ in self._past])
            else:
                seen, results = env.reset(task.index), []
                for action, _ in self._past:
                    results.append(env.step(action))
                    if results[-1].done:
                        break
            if seen.id != task.id:
                break
            if [(result.reward, result.done) for result in results] == expected:
                return
        self._journal.remove()
        raise RecordGone(
            f"index {task.index} does not come back as it was before the interruption; its unsaved answers are given up"
        )
