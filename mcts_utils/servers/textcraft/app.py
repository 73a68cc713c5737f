"""TextCraft over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

The players are in sessions.py, the rules of the game in world.py. Ours alone: GET /split gives the goal indices of the
fixed train/test split, GET /about which goals these are and what the server can do more: POST /fork copies a session,
POST /replay resets one and plays actions in one request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import IDLE_SECONDS, answered, running
from mcts_utils.servers.textcraft.sessions import Sessions
from mcts_utils.servers.textcraft.world import load_world


class CreateBody(BaseModel):
    """Body of /create. The contract has both fields, and the public server ignores both."""

    commands: str | None = None
    goal: str | None = None


class ResetBody(BaseModel):
    """Body of /reset."""

    id: int
    data_idx: int | None = 0


class StepBody(BaseModel):
    """Body of /step."""

    id: int
    action: str


class SessionBody(BaseModel):
    """Body of /close and /fork."""

    id: int


class ReplayBody(BaseModel):
    """Body of /replay."""

    id: int
    data_idx: int | None = 0
    actions: list[str]


def create_app(idle_seconds: float = IDLE_SECONDS, clock: Callable[[], float] = time.monotonic) -> FastAPI:
    """The server as an ASGI app with sessions of its own. Handlers are coroutines: a step is too short for a thread."""
    app = FastAPI(title="TextCraft")
    sessions = Sessions(load_world(), idle_seconds, clock)
    split = sessions.world.split()

    @app.get("/")
    async def hello() -> Response:
        return JSONResponse("This is environment TextCraft.")

    @app.post("/create")
    async def create(body: CreateBody) -> Response:
        return answered(sessions.create)

    @app.post("/reset")
    async def reset(body: ResetBody) -> Response:
        return answered(sessions.reset, body.id, body.data_idx)

    @app.post("/step")
    async def step(body: StepBody) -> Response:
        return answered(sessions.step, body.id, body.action)

    @app.get("/observation")
    async def observation(id: int) -> Response:
        return answered(lambda: sessions.detail(id)["observation"])

    @app.get("/detail")
    async def detail(id: int) -> Response:
        return answered(sessions.detail, id)

    @app.get("/commands")
    @app.get("/goal")
    async def never_worked(id: int) -> Response:
        return PlainTextResponse("Internal Server Error", status_code=500)

    @app.post("/close")
    async def close(body: SessionBody) -> Response:
        return answered(sessions.close, body.id)

    @app.post("/fork")
    async def fork(body: SessionBody) -> Response:
        return answered(sessions.fork, body.id)

    @app.post("/replay")
    async def replay(body: ReplayBody) -> Response:
        return answered(sessions.replay, body.id, body.data_idx, body.actions)

    @app.get("/about")
    async def about() -> Response:
        kind = f"agent-r-textcraft-{sessions.world.digest()}"
        extensions = ["fork", "replay"]
        return JSONResponse(
            {"env": "textcraft", "kind": kind, "goals": len(sessions.world.goals), "extensions": extensions}
        )

    @app.get("/split")
    async def train_test_split() -> Response:
        return JSONResponse(split)

    return app


@contextmanager
def running_server(port: int = 0, idle_seconds: float = IDLE_SECONDS) -> Iterator[str]:
    """A server in a thread of this process for the time of a `with` block, on 127.0.0.1; gives its base URL.

    Raises:
        OSError: the port is in use.
    """
    with running(create_app(idle_seconds), port) as base_url:
        yield base_url
