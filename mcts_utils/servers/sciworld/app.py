"""ScienceWorld over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

What a request does is in sessions.py. Extensions to the public contract: GET /split, /about, /gold and POST /replay.
Handlers run in threads, because a step waits for a Java process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mcts_utils.servers.app_server import GoalIndex, SessionId, json_answer, new_app
from mcts_utils.servers.contract import ReplayBody, ResetBody, SessionBody, StepBody, add_facts
from mcts_utils.servers.sciworld.games import games, split
from mcts_utils.servers.sciworld.pool import Pool
from mcts_utils.servers.sciworld.sessions import READ, Sessions
from mcts_utils.servers.session_store import IDLE_SECONDS, MAX_SESSIONS

# The ids are those of AgentGym's server. The simulator cannot be copied, so there is no fork.
ABOUT = {"env": "sciworld", "kind": "agentgym", "goals": len(games()), "extensions": ["replay"]}


def create_app(
    pool: Pool,
    idle_seconds: float = IDLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    max_sessions: int = MAX_SESSIONS,
) -> FastAPI:
    """Return the server as an ASGI app; its shutdown closes the pool. Other arguments as SessionStore."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            pool.close()

    app = new_app("ScienceWorld", lifespan)
    sessions = Sessions(pool, idle_seconds, clock, max_sessions)
    app.state.store = sessions.store
    _add_session_routes(app, sessions)
    _add_read_routes(app, sessions)
    _add_extensions(app, sessions)
    return app


def _add_session_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that open, change or close a session."""
    add_facts(app, {"/": "This is environment ScienceWorld."})

    @app.post("/create")
    def create() -> Response:
        return json_answer(sessions.create)

    @app.post("/reset")
    def reset(body: ResetBody) -> Response:
        return json_answer(sessions.reset, body.id, body.data_idx)

    @app.post("/step")
    def step(body: StepBody) -> Response:
        return json_answer(sessions.step, body.id, body.action)

    @app.post("/step_visual")
    def step_visual(body: StepBody) -> Response:
        return json_answer(sessions.step_visual, body.id, body.action)

    @app.post("/close")
    def close(body: SessionBody) -> Response:
        if sessions.close(body.id):
            return JSONResponse(True)
        return PlainTextResponse("Internal Server Error", status_code=500)


def _add_read_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that show a session's state and change nothing."""

    def add(name: str) -> None:
        @app.get(f"/{name}")
        def read(id: SessionId) -> Response:
            return json_answer(sessions.read, id, name)

    for name in READ:
        add(name)


def _add_extensions(app: FastAPI, sessions: Sessions) -> None:
    """Add the routes that the public server does not have."""
    add_facts(app, {"/split": split(), "/about": ABOUT})

    @app.get("/gold")
    def gold(data_idx: GoalIndex) -> Response:
        return json_answer(sessions.gold, data_idx)

    @app.post("/replay")
    def replay(body: ReplayBody) -> Response:
        return json_answer(sessions.replay, body.id, body.data_idx, body.actions)
