"""Client of a TextCraft server: a public AgentGym one, or the bundled one.

It keeps its own `done` and its own history of actions, so a session that is lost (connection broken, server restarted,
session closed as idle) is played again in a new one. It chooses no actions and knows no recipes.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from typing import Any

from mcts_utils.envs.http import ConnectionLost, EnvAnswer, HttpSession, NotConnected
from mcts_utils.types import EnvError, StepResult, Task

NAME = "textcraft"
GREETING = "TextCraft"  # GET / says "This is environment TextCraft."
GOAL_LINE = re.compile(r"^Goal: craft (.+)\.\s*\Z", re.MULTILINE)
RECOVERIES = 2  # new sessions tried for one step
CLOSE_TIMEOUT = 5.0  # seconds; nobody waits long for a goodbye


def goal_of(opening: str) -> str | None:
    """The goal item in an opening text; the list of commands before it is no part of a task's identity."""
    match = GOAL_LINE.search(opening)
    return match.group(1) if match else None


def task_id(opening: str) -> str:
    """`textcraft:` and 16 hex digits of the goal text's sha256.

    Raises:
        EnvError: the opening names no goal.
    """
    goal = goal_of(opening)
    if goal is None:
        raise EnvError(f"no line 'Goal: craft <item>.' in the opening text {opening[-200:]!r}")
    return f"{NAME}:{hashlib.sha256(goal.encode()).hexdigest()[:16]}"


class TextCraft:
    """One session on a TextCraft server (Environment). Opened by the first reset; one user at a time."""

    def __init__(self, http: HttpSession, recoveries: int = RECOVERIES) -> None:
        self._http = http
        self._recoveries = recoveries
        self._id: int | None = None  # of the session on the server; None when there is none to use
        self._seen = ""  # its last observation
        self._task: Task | None = None
        self._played: list[tuple[str, StepResult]] = []

    def reset(self, index: int) -> Task:
        """Start goal `index` (the server takes it modulo its number of goals). The opening is as this reset showed it.

        Raises:
            EnvError: no usable answer; the next reset starts with a new session.
        """
        self._task, self._played = None, []
        for attempt in range(self._recoveries + 1):
            try:
                self._task = self._start(index)
                return self._task
            except EnvError as error:
                self._drop(error)
                if not is_lost(error) or attempt == self._recoveries:
                    raise
            self._http.pause(attempt)
        raise AssertionError("unreachable")

    def step(self, action: str) -> StepResult:
        """Execute one action. A session lost on the way is replayed in a new one, `recoveries` times at most.

        Raises:
            EnvError: called before reset or after done; no usable answer; or the replay answered otherwise than before.
        """
        if self._task is None:
            raise EnvError("step without a task: reset first")
        if self._played and self._played[-1][1].done:
            raise EnvError(f"step {action!r} after the episode was done")
        task = self._task
        try:
            result = self._act(action)
        except EnvError as error:
            self._drop(error)
            result = self._recover(task, action, error)
        self._played.append((action, result))
        return result

    def close(self) -> None:
        """Close the session on the server, and the connections. Whatever fails here is no failure."""
        if self._id is not None:
            self._say_goodbye(lambda: self._send("/close", {}, timeout=CLOSE_TIMEOUT))
        self._id = self._task = None
        self._http.close()

    def _start(self, index: int) -> Task:
        """Start the goal, in a new session where there is none."""
        if self._id is None:
            created = self._http.post("/create", {})
            self._id = field(created, "id", int)
            self._seen = field(created, "observation", str)
        opening = field(self._send("/reset", {"data_idx": index}), "observation", str)
        self._seen = opening
        return Task(NAME, index, task_id(opening), opening)

    def _send(self, path: str, body: dict[str, Any], timeout: float | None = None) -> Any:
        """POST about the session, over the connection on which it was last used.

        A new connection may lead to a restarted server, which numbers its sessions from 0 again: our id can be
        somebody else's. So a connection that broke ends the session; one that was idle too long (a slow actor), or is
        never kept, is opened again, and the session must still show our last observation.

        Raises:
            EnvError: no usable answer; NotConnected where nothing was sent.
        """
        body = {"id": self._id, **body}
        try:
            return self._http.post(path, body, reconnect=False, timeout=timeout)
        except NotConnected as gone:
            if not gone.expected or self._http.get("/observation", {"id": self._id}) != self._seen:
                raise
            return self._http.post(path, body, timeout=timeout)

    def _act(self, action: str) -> StepResult:
        # Half a character (a lone surrogate) from a model cannot be sent as UTF-8.
        sendable = action.encode("utf-8", "replace").decode("utf-8")
        answer = self._send("/step", {"action": sendable})
        reward = field(answer, "reward", (int, float))
        if not (math.isfinite(reward) and 0 <= reward <= 1):
            raise EnvError(f"{self._http.base_url}/step: reward {reward!r} is not in [0, 1]")
        result = StepResult(field(answer, "observation", str), float(reward), field(answer, "done", bool))
        self._seen = result.observation
        return result

    def _recover(self, task: Task, action: str, error: EnvError) -> StepResult:
        """Replay the episode in a new session and take the step there; `error` is what lost the old one.

        Raises:
            EnvError: `error` itself if no session was lost, the last error after `recoveries` tries, or a difference.
        """
        for attempt in range(self._recoveries):
            if not is_lost(error):
                break
            self._http.pause(attempt)
            try:
                self._replay(task)
                return self._act(action)
            except EnvError as again:
                self._drop(again)
                error = again
        self._task = None
        raise error

    def _replay(self, task: Task) -> None:
        """The played actions again, in a new session.

        Raises:
            EnvError: another goal or another answer than before.
        """
        # The listed commands may differ after a restart of a public server; the goal may not.
        seen = self._start(task.index)
        if seen.id != task.id:
            raise EnvError(
                f"{self._http.base_url}: after a new connection index {task.index} is "
                f"{goal_of(seen.opening)!r}, not {goal_of(task.opening)!r}"
            )
        for number, (action, before) in enumerate(self._played):
            now = self._act(action)
            if now != before:
                raise EnvError(
                    f"{self._http.base_url}: replayed after a new connection, step {number} {action!r} answered "
                    f"{now.observation!r}, before {before.observation!r}"
                )

    def _drop(self, error: EnvError) -> None:
        """Forget the session after `error`; close it unless it is lost, with the id perhaps in other hands."""
        number, self._id = self._id, None
        if number is not None and not is_lost(error):
            # It answered just now, so a new connection (the old one ends with a 500) leads to the same server.
            self._say_goodbye(lambda: self._http.post("/close", {"id": number}, timeout=CLOSE_TIMEOUT))

    @staticmethod
    def _say_goodbye(close: Callable[[], Any]) -> None:
        try:
            close()
        except EnvError:
            pass  # 404 and 500 are usual answers to /close on public servers


def is_lost(error: EnvError) -> bool:
    """True if the session cannot be used any more though the request was right: broken connection, or id unknown."""
    return isinstance(error, ConnectionLost) or (
        isinstance(error, EnvAnswer) and "is not valid" in str(error)
    )


def field(answer: Any, name: str, kind: type | tuple[type, ...]) -> Any:
    """A field of an answer.

    Raises:
        EnvError: it is missing or of another type.
    """
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise EnvError(f"the server answered without a proper {name!r}: {str(answer)[:200]!r}")
    return value
