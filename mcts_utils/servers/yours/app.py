"""An environment of yours over HTTP, in AgentGym's contract with the extensions of docs/fork-protocol.md.

All calls of your code run one after the other on one thread. A call that does not return within a limit is named in the
answers to it and to all later requests, until it returns.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import json_answer, new_app
from mcts_utils.servers.contract import ReplayBody, ResetBody, SessionBody, StepBody, add_facts, until_done
from mcts_utils.servers.session_store import IDLE_SECONDS, MAX_SESSIONS, SessionStore
from mcts_utils.servers.yours.world import Session, World, WorldError

LIMIT_SECONDS = 30.0  # of one call; a client waits for 60


class TextBody(BaseModel):
    """Body of /is_refusal."""

    text: str


class Caller:
    """Calls functions on one thread, which ends with the process even if a call never returns."""

    def __init__(self, limit: float) -> None:
        self._limit, self._lock = limit, asyncio.Lock()
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._late: tuple[str, Future[Any]] | None = None  # the call that did not return in time
        Thread(target=self._work, name="world", daemon=True).start()

    async def answer(self, what: str, function: Callable[[], Any], calls: int = 1) -> Response:
        """Return the answer with what the function returns, or with its error; `calls` of your code are in it."""
        async with self._lock:
            if self._late is None or self._late[1].done():
                self._late, future = None, Future[Any]()
                self._queue.put((future, function))
                waiting = asyncio.wrap_future(future)
                # asyncio logs an exception that nobody asks for.
                waiting.add_done_callback(lambda ended: ended.exception())
                if (await asyncio.wait({waiting}, timeout=calls * self._limit))[0]:
                    return json_answer(waiting.result)
                self._late = what, future
            late = self._late[0]
        return JSONResponse({"error": f"{late} has not returned within {self._limit:g} s"})

    def _work(self) -> None:
        while True:
            future, function = self._queue.get()
            try:
                future.set_result(function())
            except BaseException as error:
                future.set_exception(error)


class Sessions:
    """The open sessions: what requests do, as values. For one thread."""

    def __init__(self, world: World, store: SessionStore[Session]) -> None:
        self.world, self.store = world, store

    def create(self) -> dict[str, Any]:
        """Open a session; it is reset before its first step."""
        for idle in self.store.pop_idle():
            idle.close()
        return {"id": self.store.add(Session(self.world))}

    def reset(self, body: ResetBody) -> dict[str, Any]:
        """Start a task."""
        opening = self.store.get(body.id).reset(body.data_idx)
        return {"id": body.id, "observation": opening, "reward": 0, "done": False}

    def replay(self, body: ReplayBody) -> dict[str, Any]:
        """Start a task and execute actions up to the first that ends the episode."""
        opening = self.reset(body)
        steps = until_done(lambda action: self.store.get(body.id).step(action), body.actions)
        return {"reset": opening, "steps": steps}

    def fork(self, number: int) -> dict[str, Any]:
        """Open a session in the same state."""
        return {"id": self.store.add(self.store.get(number).copy())}

    def observation(self, number: int) -> str | None:
        """Return the last observation."""
        return self.store.get(number).shown

    def close(self, number: int) -> bool:
        """Close a session; return True if it was open."""
        session = self.store.pop(number)
        if session is not None:
            session.close()
        return session is not None

    def close_all(self) -> None:
        """Close all objects, whatever their code does."""
        opened = [self.store.pop(number) for number in self.store.ids()]
        for session in (*opened, Session(self.world, self.world.stated)):
            with suppress(WorldError):
                if session is not None:
                    session.close()


def create_app(
    world: World,
    idle_seconds: float = IDLE_SECONDS,
    limit: float = LIMIT_SECONDS,
    max_sessions: int = MAX_SESSIONS,
    clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """Return the server as an ASGI app; its shutdown closes the sessions."""
    sessions, caller = Sessions(world, SessionStore(idle_seconds, clock, max_sessions)), Caller(limit)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await caller.answer("close()", sessions.close_all)

    app = new_app(world.name, lifespan)
    app.state.store = sessions.store
    _add_public_routes(app, sessions, caller)
    _add_extensions(app, sessions, caller)
    _add_offers(app, sessions, caller)
    return app


def _add_public_routes(app: FastAPI, sessions: Sessions, caller: Caller) -> None:
    add_facts(app, {"/": f"This is environment {app.title}."})

    @app.post("/create")
    async def create() -> Response:
        return await caller.answer("making it", sessions.create)

    @app.post("/reset")
    async def reset(body: ResetBody) -> Response:
        return await caller.answer(f"reset({body.data_idx})", lambda: sessions.reset(body))

    @app.post("/step")
    async def step(body: StepBody) -> Response:
        what = f"step({body.action[:60]!r})"
        return await caller.answer(what, lambda: sessions.store.get(body.id).step(body.action))

    @app.get("/observation")
    async def observation(id: int) -> Response:
        return await caller.answer("observation", lambda: sessions.observation(id))

    @app.post("/close")
    async def close(body: SessionBody) -> Response:
        return await caller.answer("close()", lambda: sessions.close(body.id))


def _add_extensions(app: FastAPI, sessions: Sessions, caller: Caller) -> None:
    world, split = sessions.world, sessions.world.split

    @app.get("/about")
    async def about() -> Response:
        return JSONResponse({**world.about, "sessions": len(sessions.store)})

    if "replay" in world.about["extensions"]:

        @app.post("/replay")
        async def replay(body: ReplayBody) -> Response:
            what, calls = f"replay of {body.data_idx}", 1 + len(body.actions)
            return await caller.answer(what, lambda: sessions.replay(body), calls)

    if "fork" in world.about["extensions"]:

        @app.post("/fork")
        async def fork(body: SessionBody) -> Response:
            return await caller.answer("copy()", lambda: sessions.fork(body.id))

    if split is not None:
        add_facts(app, {"/split": split})


def _add_offers(app: FastAPI, sessions: Sessions, caller: Caller) -> None:
    world = sessions.world

    if "expert" in world.offers:

        @app.get("/expert")
        async def expert(data_idx: int) -> Response:
            return await caller.answer(f"expert({data_idx})", lambda: world.expert(data_idx))

    if "is_refusal" in world.offers:

        @app.post("/is_refusal")
        async def is_refusal(body: TextBody) -> Response:
            return await caller.answer("is_refusal()", lambda: world.is_refusal(body.text))

    if "valid_actions" in world.offers:

        @app.get("/valid_actions")
        async def valid_actions(id: int) -> Response:
            return await caller.answer("valid_actions()", lambda: sessions.store.get(id).valid_actions())
