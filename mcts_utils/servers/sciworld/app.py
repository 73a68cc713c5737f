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
from pydantic import BaseModel

from mcts_utils.servers.app_server import IDLE_SECONDS, json_answer
from mcts_utils.servers.sciworld.games import games, split
from mcts_utils.servers.sciworld.pool import Pool
from mcts_utils.servers.sciworld.sessions import NotOpen, Sessions

# The ids are those of AgentGym's server. The simulator cannot be copied, so there is no fork.
ABOUT = {"env": "sciworld", "kind": "agentgym", "goals": len(games()), "extensions": ["replay"]}


class IdBody(BaseModel):
    """Body of /close."""

    id: int


class ResetBody(IdBody):
    """Body of /reset."""

    data_idx: int


class StepBody(IdBody):
    """Body of /step and /step_visual."""

    action: str


class ReplayBody(ResetBody):
    """Body of /replay."""

    actions: list[str]


def create_app(
    pool: Pool, idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic
) -> FastAPI:
    """Return the server as an ASGI app; its shutdown closes the pool.

    Args:
        pool: the Java processes.
        idle_seconds: sessions unused for longer are closed.
        clock: seconds, from any origin.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            pool.close()

    app = FastAPI(title="ScienceWorld", lifespan=lifespan)
    sessions = Sessions(pool, idle_seconds, clock)
    _add_session_routes(app, sessions)
    _add_read_routes(app, sessions)
    _add_extensions(app, sessions)
    return app


def _add_session_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that open, change or close a session."""

    @app.get("/")
    async def hello() -> Response:
        return JSONResponse("This is environment ScienceWorld.")

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
    def close(body: IdBody) -> Response:
        try:
            return JSONResponse(sessions.close(body.id))
        except NotOpen:
            return PlainTextResponse("Internal Server Error", status_code=500)


def _add_read_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that show a session's state and change nothing."""

    @app.get("/observation")
    def observation(id: int) -> Response:
        return json_answer(sessions.observation, id)

    @app.get("/detail")
    def detail(id: int) -> Response:
        return json_answer(sessions.detail, id)

    @app.get("/action_hint")
    def action_hint(id: int) -> Response:
        return json_answer(sessions.action_hint, id)

    @app.get("/goals")
    def goals(id: int) -> Response:
        return json_answer(sessions.show, id, "goals", "getGoalProgressStr")

    @app.get("/task_description")
    def task_description(id: int) -> Response:
        return json_answer(sessions.show, id, "task_description", "getTaskDescription")

    @app.get("/object_tree")
    def object_tree(id: int) -> Response:
        return json_answer(sessions.object_tree, id)

    @app.get("/state")
    def state(id: int) -> Response:
        return json_answer(sessions.state, id)


def _add_extensions(app: FastAPI, sessions: Sessions) -> None:
    """Add the routes that the public server does not have."""

    @app.get("/split")
    async def train_test_split() -> Response:
        return JSONResponse(split())

    @app.get("/about")
    async def about() -> Response:
        return JSONResponse(ABOUT)

    @app.get("/gold")
    def gold(data_idx: int) -> Response:
        return json_answer(sessions.gold, data_idx)

    @app.post("/replay")
    def replay(body: ReplayBody) -> Response:
        return json_answer(sessions.replay, body.id, body.data_idx, body.actions)
