"""Run episodes on an AgentGym server, public or bundled; a spec says what is particular to its environment.

It keeps the history of actions, so that an episode whose session is lost (connection broken, server restarted, session
closed as idle) is replayed in a new one. It chooses no actions except for grounding, which replaces an action that the
environment does not understand by the valid one that is meant (grounding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, TypeVar

from mcts_utils import patience
from mcts_utils.envs.errors import EnvStatus
from mcts_utils.envs.grounding import nearest
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.remote_session import ConnectionPool, RemoteSession, sendable
from mcts_utils.envs.specs.base import EnvSpec, field
from mcts_utils.replies import bare
from mcts_utils.types import EnvError, StepResult, Task

RECOVERIES = 2  # new sessions tried for one step, at least
MAX_TRIES = 8  # of one request, each in a new session, though its server still answers others

Result = TypeVar("Result")


class AgentGym:
    """One session on an environment server (types.Environment), opened by the first reset. For one user at a time."""

    def __init__(
        self,
        http: HttpSession,
        spec: EnvSpec,
        grounding: bool = True,
        recoveries: int = RECOVERIES,
        action_format: str = "any",
    ) -> None:
        """`recoveries`: new sessions tried for one call when a session is lost, whatever the patience of `http`."""
        self._http, self._spec = http, spec
        self._remote = RemoteSession(http, spec)
        self._grounding = grounding and spec.free_action != ""
        self._recoveries, self._action_format = recoveries, action_format
        self._task: Task | None = None
        self._history: list[tuple[str, StepResult]] = []  # the episode's actions and their answers
        self._extensions: frozenset[str] | None = None
        self._connections = ConnectionPool(http)  # shared with the forks
        self._is_fork = False

    @property
    def waits(self) -> bool:
        return self._spec.waits

    @property
    def action_format(self) -> str:
        return self._action_format

    @property
    def session_bound_tasks(self) -> bool:
        """Return True if another session would show other goals and the server cannot copy this one (public WebShop).

        Raises:
            EnvError: as `extensions`.
        """
        return self._spec.session_bound_tasks and "fork" not in self.extensions

    @property
    def extensions(self) -> frozenset[str]:
        """Return what the server offers beyond AgentGym's interface ("fork", "replay"), from one request a session.

        Raises:
            EnvError: no usable answer.
        """
        if self._extensions is None:
            self._extensions = frozenset(about_server(self._http)["extensions"])
        return self._extensions

    def reset(self, index: int) -> Task:
        """Start goal `index` and return the task with the opening that this reset showed.

        Raises:
            EnvError: no usable answer; the next reset starts with a new session.
        """
        self._task, self._history = None, []
        self._task = self._retrying(lambda: self._reset(index))
        return self._task

    def step(self, action: str) -> StepResult:
        """Execute one action. If the session is lost, the episode is replayed in a new one, at most `recoveries` times.

        Raises:
            EnvError: before reset or after done; no usable answer; or the replay's answers differ from the first ones.
        """
        self._check("step", repr(action))
        result = self._replaying(lambda: self._execute(action))
        self._history.append((action, result))
        return result

    def fork(self) -> AgentGym:
        """Return another session in the same state; the caller closes it. Only where `extensions` has "fork".

        Raises:
            EnvError: as `step`.
        """
        self._check("fork")
        answer = self._replaying(lambda: self._remote.send("/fork", {}))
        session_id = field(answer, self._spec.id_field, int)
        http = self._connections.take()
        fork = AgentGym(http, self._spec, self._grounding, self._recoveries, self._action_format)
        fork._remote = self._remote.forked(session_id, http)
        fork._connections, fork._is_fork = self._connections, True
        fork._task, fork._history, fork._extensions = self._task, list(self._history), self._extensions
        return fork

    def replay(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        """Start goal `index`, execute the actions up to the first that ends the episode, and return task and answers.

        It is one request where the server offers "replay" and no action needs grounding; else one request a step.

        Raises:
            EnvError: as `reset` and `step`.
        """
        if "replay" in self.extensions:
            self._task, self._history = None, []
            task, results = self._retrying(lambda: self._replay_at_once(index, actions))
            if not (self._grounding and any(self._spec.is_unknown(r.observation) for r in results)):
                self._task, self._history = task, list(zip(actions, results, strict=False))
                return task, results
        task = self.reset(index)
        for action in actions:
            if self.step(action).done:
                break
        return task, [result for _, result in self._history]

    def close(self) -> None:
        """Close the session on the server and the connections; a fork gives its own back to the pool. Never raises."""
        self._remote.close()
        self._task = None
        if self._is_fork:
            self._connections.give(self._http)
            self._http = self._remote.http = self._http.another()
            self._connections, self._is_fork = ConnectionPool(self._http), False
        else:
            self._http.close()
            self._connections.close()

    def _check(self, call: str, action: str = "") -> None:
        """Check that an episode is running; raise EnvError otherwise."""
        if self._task is None:
            raise EnvError(f"{call} without a task: reset first")
        if self._remote.done:
            raise EnvError(f"{call} {action} after the episode was done")

    def _retrying(self, call: Callable[[], Result], restore: Callable[[], Any] = lambda: None) -> Result:
        """Return what `call` returns; if the session is lost, run `restore` and `call` in a new one.

        Raises:
            EnvError: the error if no session was lost, else the last one: of MAX_TRIES calls, or when `recoveries` new
                sessions and the patience with the server are used up; ServerGone if it answers nobody.
        """
        tries, since = 0, 0.0
        for attempt in count():
            try:
                if attempt:
                    restore()
                tries += 1
                result = call()
                if attempt:
                    self._remote.close_abandoned([shown.observation for _, shown in self._history])
                return result
            except EnvError as error:
                lost = self._remote.is_lost(error)
                self._remote.drop(error, lost)
                since = since or patience.now()
                if not lost or (
                    attempt >= self._recoveries
                    and (tries >= MAX_TRIES or self._http.patience_ends(since, error))
                ):
                    raise
                pause = getattr(error, "retry_after", 0.0)
            self._http.pause(attempt, pause)
        raise AssertionError("unreachable")

    def _replaying(self, call: Callable[[], Result]) -> Result:
        """Return what `call` returns; if the session is lost, replay the episode in a new one and call it there.

        Raises:
            EnvError: as `_retrying` and `_replay_history`.
        """
        task = self._task
        assert task is not None
        try:
            return self._retrying(call, lambda: self._replay_history(task))
        except EnvError:
            self._task = None
            raise

    def _reset(self, index: int) -> Task:
        return self._started(self._remote.start_episode("/reset", index, {}), index)

    def _replay_at_once(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        """Return the task and the results of all actions from one request."""
        body = {"actions": [sendable(action) for action in actions]}
        answer = self._remote.start_episode("/replay", index, body)
        task = self._started(field(answer, "reset", (dict, list)), index)
        results = [self._spec.result(step) for step in field(answer, "steps", list)]
        ended = bool(results) and results[-1].done
        if any(result.done for result in results[:-1]) or not (ended or len(results) == len(actions)):
            raise EnvError(f"{self._http.base_url}/replay: {len(results)} answers to {len(actions)} actions")
        if results:
            self._remote.note_step(results[-1])
        return task, results

    def _started(self, answer: Any, index: int) -> Task:
        started = self._spec.started(answer, index)
        self._remote.note_reset(started)
        return started.task

    def _execute(self, action: str) -> StepResult:
        """Execute the action, or the valid one that it means."""
        result = self._remote.execute(action)
        if self._grounding and self._spec.is_unknown(result.observation):
            if (plain := bare(action)) != action:
                result = self._remote.execute(plain)
                if not self._spec.is_unknown(result.observation):
                    return replace(result, grounded_action=plain)
            meant = nearest(action, self._remote.valid_actions())
            if meant is not None:
                return replace(self._remote.execute(meant), grounded_action=meant)
        return result

    def _replay_history(self, task: Task) -> None:
        """Execute the history's actions in a new session.

        Raises:
            EnvError: another goal or another answer than before, no usable answer, or a server of mode live.
        """
        if self._spec.live:
            raise EnvError(
                f"{self._http.base_url}: the session of index {task.index} is lost, and its mode is live"
            )
        seen, spec = self._reset(task.index), self._spec
        where = f"{self._http.base_url}: after a new connection"
        if seen.id != task.id:
            goals = [spec.goal(opening) for opening in (seen.opening, task.opening)]
            raise EnvError(f"{where} index {task.index} is {goals[0]!r}, not {goals[1]!r}")
        if spec.fixed_opening and seen.opening != task.opening:
            raise EnvError(f"{where} index {task.index} opens {seen.opening!r}, before {task.opening!r}")
        for number, (action, before) in enumerate(self._history):
            now = self._remote.execute(before.grounded_action or action)
            if difference := spec.difference(before, now):
                raise EnvError(f"{where} and a replay, step {number} {action!r} {difference}")


def about_server(http: HttpSession) -> dict[str, Any]:
    """Return the answer to GET /about, which describes a bundled server; a public one (404) is of kind "agentgym".

    Raises:
        EnvError: no usable answer.
    """
    try:
        about = http.get_patiently("/about")
    except EnvStatus as error:
        if error.status != 404:
            raise
        about = {"kind": "agentgym", "extensions": []}
    field(about, "kind", str)
    field(about, "extensions", list)
    return dict(about)
