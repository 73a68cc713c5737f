"""Hold one session on an environment server by its id: create it, send its requests, detect its loss, close it.

It keeps the last observation and whether the episode is done. It never repeats a request that may have been executed,
and it replays nothing; client.py does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import Any

from mcts_utils.envs.errors import ConnectionLost, EnvAnswer, EnvStatus, NotConnected, Unavailable
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs.base import EnvSpec, Started
from mcts_utils.types import EnvError, StepResult

CLOSE_TIMEOUT = 5.0  # seconds to wait for the answer to /close
NUMBERED = 2**32  # no server that counts its sessions gets there; bundled servers draw larger random ids


class RemoteSession:
    """One session on the server, created at its first episode. For one user at a time."""

    def __init__(self, http: HttpSession, spec: EnvSpec) -> None:
        self.http, self.spec = http, spec
        self.done = False  # the episode has ended
        self._id: int | None = None  # of the session on the server; None: no usable one
        self._reconnect = False  # the session survived an error, so the next request opens a new connection
        self._last_shown: str | None = None  # the last observation; None before the first
        # Ids given up after a late answer, each with its last observation.
        self._abandoned: list[tuple[int, str]] = []

    def start_episode(self, path: str, index: int, more: dict[str, Any]) -> Any:
        """Return the answer to a request that starts an episode; create a session if there is none.

        Args:
            more: fields of the request besides the session's id and the goal's index.

        Raises:
            EnvError: no usable answer.
        """
        if self._id is None:
            created = self.http.post("/create", dict(self.spec.create_fields))
            self._id = self.spec.session_id(created)
            self._last_shown = created.get("observation") if isinstance(created, dict) else None
            self.done = False
        body = {self.spec.index_field: index, **self.spec.reset_fields, **more}
        if not self._reconnect:
            return self.send(path, body)
        answer = self.http.post(path, {self.spec.id_field: self._id, **body})
        self._reconnect = False
        return answer

    def note_reset(self, started: Started) -> None:
        """Keep what a reset showed."""
        self._last_shown, self.done = started.shown, False

    def note_step(self, result: StepResult) -> StepResult:
        """Keep what a step showed; return it."""
        self._last_shown, self.done = result.observation, result.done
        return result

    def execute(self, action: str) -> StepResult:
        """Execute one action and return the answer; raise EnvError if there is no usable answer."""
        return self.note_step(
            self.spec.result(self.send("/step", {"action": sendable(self.spec.sent(action))}))
        )

    def valid_actions(self) -> list[str]:
        """Return the actions that are valid now. It costs the episode nothing.

        Raises:
            EnvError: no usable answer.
        """
        answer = self.send("/step_visual", {"action": self.spec.free_action})
        self.note_step(self.spec.result(answer))
        return list(self.spec.valid_actions(answer))

    def forked(self, session_id: int, http: HttpSession) -> RemoteSession:
        """Return the session of another id, which the server made as a copy of this one."""
        fork = RemoteSession(http, self.spec)
        fork._id, fork._last_shown, fork.done = session_id, self._last_shown, self.done
        return fork

    def send(self, path: str, body: dict[str, Any], timeout: float | None = None) -> Any:
        """POST a request of the session over the connection of its last request; return the answer.

        A new connection may lead to a restarted server, which numbers its sessions from 0 again: our id may then be
        another client's. So a connection that broke ends the session. One that was idle too long (a slow actor) or that
        the server does not keep open is opened again; the session must then still show our last observation.

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
        """Return True if the error means that the session is gone, though the request was right."""
        if isinstance(error, EnvAnswer):
            return any(text in str(error) for text in self.spec.lost)
        if isinstance(error, EnvStatus) and error.status >= 500 and self.spec.listing:
            return not self._is_listed()
        return isinstance(error, ConnectionLost)

    def drop(self, error: EnvError, lost: bool) -> None:
        """Stop using the session after `error`; close it unless it is lost, since its id may be another client's.

        Where ids are random numbers, a session that the server still lists is ours and is kept: its goals keep their
        price limits, and public servers cannot close it. It is not kept after an answer that came too late, because the
        server may still execute that request.
        """
        session_id = self._id
        slow = isinstance(error, ConnectionLost) and error.slow
        self._reconnect = (
            session_id is not None and bool(self.spec.listing) and not slow and self._is_listed()
        )
        if self._reconnect:
            return
        self._id = None
        if session_id is not None and lost and (slow or isinstance(error, Unavailable)):
            if self._last_shown is not None and not self.spec.listing:
                self._abandoned.append((session_id, self._last_shown))
        elif session_id is not None and not lost:
            # It has just answered, so a new connection (the old one ends with a 500) leads to the same server.
            self._close_by_id(session_id)

    def close_abandoned(self, texts: Iterable[str]) -> None:
        """Close the sessions that were given up although their server goes on, where they are ours. Never raises.

        A public server that has restarted numbers its sessions from 0 again. So one is ours only if its id is a random
        number or below that of the new session, and if it shows what it showed before the lost answer or one of the
        episode's other texts.
        """
        waiting, self._abandoned = self._abandoned, []
        known = {self._last_shown, *texts}
        for session_id, seen in waiting:
            if self._id is not None and self._id < session_id < NUMBERED:
                continue
            http = self.http.another()  # a slow answer must not end the new session's connection
            try:
                answer = http.get("/observation", {self.spec.id_field: session_id}, CLOSE_TIMEOUT)
                if any(self.spec.shows(answer, text) for text in {seen, *known} if text is not None):
                    http.post("/close", {self.spec.id_field: session_id}, timeout=CLOSE_TIMEOUT)
            except ConnectionLost:
                # It still executes: try again when this one closes.
                self._abandoned.append((session_id, seen))
            except EnvError:
                pass
            finally:
                http.close()

    def close(self) -> None:
        """Close the session on the server. Never raises."""
        self.close_abandoned(())
        if self._id is not None and self._reconnect:
            self._close_by_id(self._id)
        elif self._id is not None:
            close_quietly(lambda: self.send("/close", {}, timeout=CLOSE_TIMEOUT))
        self._id, self._reconnect = None, False

    def _is_ours(self) -> bool:
        """Return True if our id cannot be another client's by now: a random one, or one that shows our last text."""
        if self._last_shown is None:
            return True  # just created, so nothing can be lost yet
        if self._id is not None and self._id >= NUMBERED:
            return True  # a random id is nobody else's: a server that lost the session says so
        try:
            answer = self.http.get("/observation", {self.spec.id_field: self._id})
        except EnvAnswer as error:
            # A server that shows nothing of a finished episode says at least that it has finished.
            if self.done and self.spec.finished in str(error):
                return True
            raise
        return self.spec.shows(answer, self._last_shown)

    def _is_listed(self) -> bool:
        """Return True if the server lists our id, or does not answer."""
        try:
            return self._id in self.http.get(self.spec.listing)
        except (EnvError, TypeError):
            return True

    def _close_by_id(self, session_id: int) -> None:
        """Close a session over any connection."""
        body = {self.spec.id_field: session_id}
        close_quietly(lambda: self.http.post("/close", body, timeout=CLOSE_TIMEOUT))


class ConnectionPool:
    """Connections of closed forks, reused by later forks: opening one takes longer than a step. Safe for threads."""

    def __init__(self, first: HttpSession) -> None:
        self._first = first
        self._free: list[HttpSession] = []
        self._closed = False
        self._lock = Lock()

    def take(self) -> HttpSession:
        """Return a connection for one user, who gives it back."""
        with self._lock:
            self._closed = False
            return self._free.pop() if self._free else self._first.another()

    def give(self, http: HttpSession) -> None:
        """Give a connection back. After `close` it is closed."""
        with self._lock:
            if not self._closed:
                self._free.append(http)
                return
        http.close()

    def close(self) -> None:
        """Close the connections that are not in use; the others are closed when they are given back."""
        with self._lock:
            self._closed, free, self._free = True, self._free, []
        for http in free:
            http.close()


def close_quietly(close: Callable[[], Any]) -> None:
    """Call `close` and ignore its EnvError: public servers usually answer /close with 404 or 500."""
    try:
        close()
    except EnvError:
        pass


def sendable(action: str) -> str:
    """Return the action with lone surrogates, which UTF-8 cannot encode, replaced by `?`."""
    return action.encode("utf-8", "replace").decode("utf-8")
