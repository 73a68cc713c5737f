"""Episodes on an AgentGym server, public or bundled, of whatever environment its spec describes.

It keeps its own `done` and its own history of actions, so a session that is lost (connection broken, server restarted,
session closed as idle) is played again in a new one. It chooses no actions, but for grounding: an action that the
environment does not understand is replaced by the valid one that is meant (grounding.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from mcts_utils.envs.grounding import nearest
from mcts_utils.envs.http import EnvStatus, HttpSession
from mcts_utils.envs.remote_session import ConnectionPool, RemoteSession, sendable
from mcts_utils.envs.specs.base import EnvSpec, field
from mcts_utils.types import EnvError, StepResult, Task

RECOVERIES = 2  # new sessions tried for one step

Result = TypeVar("Result")


class AgentGym:
    """One session on an environment server (Environment). Opened by the first reset; one user at a time."""

    def __init__(
        self, http: HttpSession, spec: EnvSpec, grounding: bool = True, recoveries: int = RECOVERIES
    ) -> None:
        self._http, self._spec = http, spec
        self._remote = RemoteSession(http, spec)
        self._grounding = grounding and spec.free_action != ""
        self._recoveries = recoveries
        self._task: Task | None = None
        self._played: list[tuple[str, StepResult]] = []
        self._extensions: frozenset[str] | None = None
        self._lines = ConnectionPool(http)
        self._forked = False

    @property
    def waits(self) -> bool:
        """True if `wait` is a command of this environment."""
        return self._spec.waits

    @property
    def session_bound_tasks(self) -> bool:
        """True if another session would show other goals: a server (a public WebShop) that cannot copy this one.

        Raises:
            EnvError: as `extensions`.
        """
        return self._spec.session_bound_tasks and "fork" not in self.extensions

    @property
    def extensions(self) -> frozenset[str]:
        """What the server offers beside AgentGym's spec ("fork", "replay"); asked for once a session.

        Raises:
            EnvError: no usable answer.
        """
        if self._extensions is None:
            self._extensions = frozenset(about(self._http)["extensions"])
        return self._extensions

    def reset(self, index: int) -> Task:
        """Start goal `index`. The opening is as this reset showed it.

        Raises:
            EnvError: no usable answer; the next reset starts with a new session.
        """
        self._task, self._played = None, []
        self._task = self._insist(lambda: self._start(index))
        return self._task

    def step(self, action: str) -> StepResult:
        """Execute one action. A session lost on the way is replayed in a new one, `recoveries` times at most.

        Raises:
            EnvError: called before reset or after done; no usable answer; or the replay went otherwise than before.
        """
        self._check("step", repr(action))
        result = self._recovering(lambda: self._act(action))
        self._played.append((action, result))
        return result

    def fork(self) -> AgentGym:
        """A session of its own in the same state, where the server announces "fork"; close it like any other.

        Raises:
            EnvError: as `step`.
        """
        self._check("fork")
        number = field(self._recovering(lambda: self._remote.send("/fork", {})), self._spec.id_field, int)
        http = self._lines.take()
        twin = AgentGym(http, self._spec, self._grounding, self._recoveries)
        twin._remote, twin._lines, twin._forked = self._remote.copy(number, http), self._lines, True
        twin._task, twin._played, twin._extensions = self._task, list(self._played), self._extensions
        return twin

    def replay(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        """Start goal `index` and execute the actions, up to the first that ends the episode.

        One request where the server announces "replay"; step by step elsewhere, and where an action needs grounding.

        Raises:
            EnvError: as `reset` and `step`.
        """
        if "replay" in self.extensions:
            self._task, self._played = None, []
            task, results = self._insist(lambda: self._start_at(index, actions))
            if not (self._grounding and any(self._spec.is_unknown(r.observation) for r in results)):
                self._task, self._played = task, list(zip(actions, results, strict=False))
                return task, results
        task = self.reset(index)
        for action in actions:
            if self.step(action).done:
                break
        return task, [result for _, result in self._played]

    def close(self) -> None:
        """Close the session on the server, and the connections; a fork's serves the next fork. Never fails."""
        self._remote.close()
        self._task = None
        if self._forked:
            self._lines.give(self._http)
            self._http = self._remote.http = self._http.another()
            self._lines, self._forked = ConnectionPool(self._http), False
        else:
            self._http.close()
            self._lines.close()

    def _check(self, what: str, which: str = "") -> None:
        if self._task is None:
            raise EnvError(f"{what} without a task: reset first")
        if self._remote.over:
            raise EnvError(f"{what} {which} after the episode was done")

    def _insist(self, begin: Callable[[], Result], again: Callable[[], Any] = lambda: None) -> Result:
        """What `begin` returns. A session lost on the way is replaced by a new one, in which `again` comes first.

        Raises:
            EnvError: the error if no session was lost, else the last one after `recoveries` tries.
        """
        for attempt in range(self._recoveries + 1):
            try:
                if attempt:
                    again()
                return begin()
            except EnvError as error:
                lost = self._remote.is_lost(error)
                self._remote.drop(error, lost)
                if not lost or attempt == self._recoveries:
                    raise
            self._http.pause(attempt)
        raise AssertionError("unreachable")

    def _recovering(self, call: Callable[[], Result]) -> Result:
        """What `call` returns; where the session is lost, the episode is replayed in a new one and `call` made there.

        Raises:
            EnvError: as `_insist`, or a replay that went otherwise.
        """
        task = self._task
        assert task is not None
        try:
            return self._insist(call, lambda: self._play_again(task))
        except EnvError:
            self._task = None
            raise

    def _start(self, index: int) -> Task:
        return self._begun(self._remote.begin("/reset", index, {}), index)

    def _start_at(self, index: int, actions: Sequence[str]) -> tuple[Task, list[StepResult]]:
        """The task, and the results of all actions from one request."""
        sent = {"actions": [sendable(action) for action in actions]}
        answer = self._remote.begin("/replay", index, sent)
        task = self._begun(field(answer, "reset", (dict, list)), index)
        results = [self._spec.result(step) for step in field(answer, "steps", list)]
        ended = bool(results) and results[-1].done
        if any(result.done for result in results[:-1]) or not (ended or len(results) == len(actions)):
            raise EnvError(f"{self._http.base_url}/replay: {len(results)} answers to {len(actions)} actions")
        for result in results[-1:]:
            self._remote.went(result)
        return task, results

    def _begun(self, answer: Any, index: int) -> Task:
        started = self._spec.started(answer, index)
        self._remote.began(started)
        return started.task

    def _act(self, action: str) -> StepResult:
        """Execute the action, or the valid one that it means."""
        result = self._remote.execute(action)
        if self._grounding and self._spec.is_unknown(result.observation):
            meant = nearest(action, self._remote.valid_actions())
            if meant is not None:
                return replace(self._remote.execute(meant), executed=meant)
        return result

    def _play_again(self, task: Task) -> None:
        """The played actions again, in a new session.

        Raises:
            EnvError: another goal or another answer than before.
        """
        seen, spec = self._start(task.index), self._spec
        where = f"{self._http.base_url}: after a new connection"
        if seen.id != task.id:
            goals = [spec.goal(opening) for opening in (seen.opening, task.opening)]
            raise EnvError(f"{where} index {task.index} is {goals[0]!r}, not {goals[1]!r}")
        if spec.fixed_opening and seen.opening != task.opening:
            raise EnvError(f"{where} index {task.index} opens {seen.opening!r}, before {task.opening!r}")
        for number, (action, before) in enumerate(self._played):
            now = self._remote.execute(before.executed or action)
            if difference := spec.difference(before, now):
                raise EnvError(f"{where} and a replay, step {number} {action!r} {difference}")


def about(http: HttpSession) -> dict[str, Any]:
    """GET /about: what a bundled server says of itself; a public one (404) is of kind "agentgym".

    Raises:
        EnvError: no usable answer.
    """
    try:
        said = http.get("/about")
    except EnvStatus as error:
        if error.status != 404:
            raise
        said = {"kind": "agentgym", "extensions": []}
    field(said, "kind", str)
    field(said, "extensions", list)
    return dict(said)
