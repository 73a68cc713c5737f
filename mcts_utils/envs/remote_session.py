"""One session on an environment server by its id: create it, talk about it, know whether it is lost, close it.

It keeps what the session showed last and whether its episode is done. It repeats no request that may have been executed
and replays nothing: session.py does that.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import Any

from mcts_utils.envs.http import ConnectionLost, EnvAnswer, EnvStatus, HttpSession, NotConnected
from mcts_utils.envs.specs.base import EnvSpec, Started
from mcts_utils.types import EnvError, StepResult

CLOSE_TIMEOUT = 5.0  # seconds; nobody waits long for a goodbye


class RemoteSession:
    """The session of one id, or none yet. One user at a time."""

    def __init__(self, http: HttpSession, spec: EnvSpec) -> None:
        self.http, self.spec = http, spec
        self.over = False  # its episode is done
        self._id: int | None = None  # of the session on the server; None when there is none to use
        self._kept = False  # the id outlived an error, so it is used over a new connection
        self._seen: str | None = None  # its last observation; None before its first

    def begin(self, path: str, index: int, more: dict[str, Any]) -> Any:
        """The answer to a request that begins an episode, in a new session where there is none.

        Raises:
            EnvError: no usable answer.
        """
        if self._id is None:
            created = self.http.post("/create", {})
            self._id = self.spec.session_id(created)
            self._seen = created.get("observation") if isinstance(created, dict) else None
            self.over = False
        body = {self.spec.index_field: index, **more}
        if not self._kept:
            return self.send(path, body)
        answer = self.http.post(path, {self.spec.id_field: self._id, **body})
        self._kept = False
        return answer

    def began(self, started: Started) -> None:
        """Note what a reset showed."""
        self._seen, self.over = started.shown, False

    def went(self, result: StepResult) -> StepResult:
        """Note what a step showed."""
        self._seen, self.over = result.observation, result.done
        return result

    def execute(self, action: str) -> StepResult:
        """One step.

        Raises:
            EnvError: no usable answer.
        """
        return self.went(self.spec.result(self.send("/step", {"action": sendable(action)})))

    def valid_actions(self) -> list[str]:
        """What can be done now; costs the episode nothing.

        Raises:
            EnvError: no usable answer.
        """
        answer = self.send("/step_visual", {"action": self.spec.free_action})
        self.went(self.spec.result(answer))
        return list(self.spec.valid_actions(answer))

    def copy(self, number: int, http: HttpSession) -> RemoteSession:
        """The link to another session in the same state."""
        twin = RemoteSession(http, self.spec)
        twin._id, twin._seen, twin.over = number, self._seen, self.over
        return twin

    def send(self, path: str, body: dict[str, Any], timeout: float | None = None) -> Any:
        """POST about the session, over the connection on which it was last used.

        A new connection may lead to a restarted server, which numbers its sessions from 0 again: our id can be
        somebody else's. So a connection that broke ends the session; one that was idle too long (a slow actor), or is
        never kept, is opened again, and the session must still show our last observation.

        Raises:
            EnvError: no usable answer; NotConnected where nothing was sent.
        """
        body = {self.spec.id_field: self._id, **body}
        try:
            return self.http.post(path, body, reconnect=False, timeout=timeout)
        except NotConnected as gone:
            if not (gone.expected and self._is_ours()):
                raise
            return self.http.post(path, body, timeout=timeout)

    def is_lost(self, error: EnvError) -> bool:
        """True if the session cannot be used any more though the request was right."""
        if isinstance(error, EnvAnswer):
            return any(text in str(error) for text in self.spec.lost)
        if isinstance(error, EnvStatus) and error.status >= 500 and self.spec.listing:
            return not self._is_listed()
        return isinstance(error, ConnectionLost)

    def drop(self, error: EnvError, lost: bool) -> None:
        """Forget the session after `error`; close it unless it is lost, with the id perhaps in other hands.

        Where ids are random numbers, one that the server still names is ours and goes on: its goals keep their price
        limits, and public servers cannot close it. After a slow answer the old request may still be executed in it.
        """
        number = self._id
        slow = isinstance(error, ConnectionLost) and error.slow
        self._kept = number is not None and bool(self.spec.listing) and not slow and self._is_listed()
        if self._kept:
            return
        self._id = None
        if number is not None and not lost:
            # It answered just now, so a new connection (the old one ends with a 500) leads to the same server.
            self._forget(number)

    def close(self) -> None:
        """Close the session on the server. Whatever fails here is no failure."""
        if self._id is not None and self._kept:
            self._forget(self._id)
        elif self._id is not None:
            say_goodbye(lambda: self.send("/close", {}, timeout=CLOSE_TIMEOUT))
        self._id, self._kept = None, False

    def _is_ours(self) -> bool:
        """True if the session of our id still shows what we saw last."""
        if self._seen is None:
            return True  # just created: there is nothing to lose in it yet
        try:
            answer = self.http.get("/observation", {self.spec.id_field: self._id})
        except EnvAnswer as error:
            # Where a finished episode shows nothing more, that it has finished is all that can be seen.
            if self.over and self.spec.finished in str(error):
                return True
            raise
        return self.spec.shows(answer, self._seen)

    def _is_listed(self) -> bool:
        """True if the server names our id, or does not say."""
        try:
            return self._id in self.http.get(self.spec.listing)
        except (EnvError, TypeError):
            return True

    def _forget(self, number: int) -> None:
        """Close a session over whatever connection."""
        body = {self.spec.id_field: number}
        say_goodbye(lambda: self.http.post("/close", body, timeout=CLOSE_TIMEOUT))


class ConnectionPool:
    """Connections of closed forks, for the next forks: opening one takes longer than a step. Safe for threads."""

    def __init__(self, first: HttpSession) -> None:
        self._first = first
        self._free: list[HttpSession] = []
        self._closed = False
        self._lock = Lock()

    def take(self) -> HttpSession:
        """A connection that nobody uses."""
        with self._lock:
            self._closed = False
            return self._free.pop() if self._free else self._first.another()

    def give(self, http: HttpSession) -> None:
        """Give a connection back; it is closed if all are."""
        with self._lock:
            if not self._closed:
                self._free.append(http)
                return
        http.close()

    def close(self) -> None:
        """Close those that nobody uses, and the others when they come back."""
        with self._lock:
            self._closed, free, self._free = True, self._free, []
        for http in free:
            http.close()


def say_goodbye(close: Callable[[], Any]) -> None:
    """Close; 404 and 500 are usual answers to that on public servers."""
    try:
        close()
    except EnvError:
        pass


def sendable(action: str) -> str:
    """Half a character (a lone surrogate) from a model cannot be sent as UTF-8."""
    return action.encode("utf-8", "replace").decode("utf-8")
