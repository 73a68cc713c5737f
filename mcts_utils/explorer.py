"""The search's way to the actor and the environment: candidates, single steps, parallel rollouts (search.Simulator).

It keeps no tree and chooses nothing: search.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, wait
from contextlib import ExitStack, contextmanager
from threading import Event

from mcts_utils.config import Settings
from mcts_utils.conversation import ACTION_LINE, WAIT_ACTION, acting_messages, action_of
from mcts_utils.rollout import Meter, SessionPool, Stopped, derive_seed, ending, replay, take_step
from mcts_utils.types import Actor, ContextOverflow, EnvError, Environment, Step, Task

REPLAYS = 3  # attempts to bring a session to a node; only ScienceWorld needs more than one
EXPANSION = -1  # the "rollout number" of an expansion's seed


class Diverged(EnvError):
    """A replay did not come back as recorded."""


class Explorer:
    """One iteration's access to the actor and the environment, for search.Explorer.

    The session that executed the chosen child goes on as the first rollout; the others reset and replay.
    """

    def __init__(self, owner: TaskSimulator, iteration: int, stack: ExitStack) -> None:
        self._owner, self._iteration, self._stack = owner, iteration, stack
        self._env: Environment | None = None
        self._at: list[Step] = []  # where the held session stands
        self._failed = Event()
        self._meter = Meter(owner.meter)

    def counts(self) -> Mapping[str, int]:
        """See search.Explorer."""
        return {name: count for name, count in self._meter.counts().items() if name != "in_flight"}

    def sample(self, path: Sequence[Step], n: int, rollout: int = EXPANSION) -> list[tuple[str, str]]:
        """See search.Explorer."""
        self._check()
        owner = self._owner
        messages = acting_messages(owner.task, path, owner.settings.prompt)
        seed = derive_seed(owner.settings.seed, owner.task.index, self._iteration, rollout, len(path))
        self._meter.add(calls=1, in_flight=1)
        try:
            samples = owner.actor.sample(messages, n, owner.settings.temp, seed)
        except ContextOverflow:
            return []
        finally:
            self._meter.add(in_flight=-1)
        replies = [sample.text.strip() for sample in samples]
        self._meter.add(
            prompt_tokens=sum(sample.prompt_tokens for sample in samples),
            completion_tokens=sum(sample.completion_tokens for sample in samples),
            invalid=sum(not ACTION_LINE.search(reply) for reply in replies),
        )
        return [(reply, action_of(reply)) for reply in replies]

    def execute(self, path: Sequence[Step], reply: str) -> Step:
        """See search.Explorer.

        Raises:
            EnvError: if the server fails, or if the path does not replay as recorded.
        """
        if self._env is None or self._at != list(path):
            self._env = self._env or self._stack.enter_context(self._owner.pool.session())
            self._go_to(self._env, path)
        step = self._step(self._env, reply, path)
        self._at = [*path, step]
        return step

    def rollouts(self, path: Sequence[Step], k: int) -> list[tuple[Step, ...] | None]:
        """See search.Explorer."""
        held = self._env if self._at == list(path) else None
        self._env = None
        futures = [
            self._owner.executor.submit(self._guarded, path, number, held if number == 0 else None)
            for number in range(k)
        ]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() for future in futures):
            self._failed.set()
        wait(futures)  # none may use a session after the iteration has given it back
        errors = [error for future in futures if (error := future.exception())]
        for error in sorted(errors, key=lambda error: isinstance(error, Stopped)):
            raise error
        return [future.result() for future in futures]

    def _guarded(
        self, path: Sequence[Step], number: int, held: Environment | None
    ) -> tuple[Step, ...] | None:
        try:
            if held is not None:
                return self._rollout(held, path, number)
            with self._owner.pool.session() as env:
                self._go_to(env, path)
                return self._rollout(env, path, number)
        except Diverged:
            return None

    def _rollout(self, env: Environment, path: Sequence[Step], number: int) -> tuple[Step, ...]:
        steps = list(path)
        while len(steps) < self._owner.settings.max_depth and not ending(steps):
            drawn = self.sample(steps, 1, number)
            if not drawn:
                break
            steps.append(self._step(env, drawn[0][0], steps))
        return tuple(steps[len(path) :])

    def _step(self, env: Environment, reply: str, before: Sequence[Step]) -> Step:
        self._check()
        step = take_step(env, reply, before[-1].reward if before else 0.0)
        self._meter.add(env_steps=step.action != WAIT_ACTION)
        return step

    def _go_to(self, env: Environment, path: Sequence[Step]) -> None:
        """Bring a session to the end of the path."""
        for _ in range(REPLAYS):
            self._check()
            task, steps = replay(env, self._owner.task.index, [step.reply for step in path])
            self._meter.add(env_resets=1, env_steps=sum(step.action != WAIT_ACTION for step in steps))
            if task.id != self._owner.task.id:
                raise EnvError(f"index {task.index} was {self._owner.task.id} and is now {task.id}")
            # Observations may vary (ScienceWorld); the score and the end may not.
            if [(s.reward, s.done) for s in steps] == [(s.reward, s.done) for s in path]:
                return
        raise Diverged(f"index {self._owner.task.index}: {len(path)} steps do not replay as recorded")

    def _check(self) -> None:
        if self._failed.is_set() or self._owner.stopped():
            raise Stopped


class TaskSimulator:
    """search.Simulator for one task: what its iterations share."""

    def __init__(
        self,
        task: Task,
        settings: Settings,
        actor: Actor,
        pool: SessionPool,
        executor: Executor,
        meter: Meter,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """`executor` runs the rollouts; it must not be the one whose thread runs the search."""
        self.task, self.settings, self.actor, self.pool = task, settings, actor, pool
        self.executor, self.meter, self.stopped = executor, meter, stopped

    @contextmanager
    def iteration(self, number: int) -> Iterator[Explorer]:
        """See search.Simulator."""
        with ExitStack() as stack:
            yield Explorer(self, number, stack)
