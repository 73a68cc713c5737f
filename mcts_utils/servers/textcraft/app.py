"""TextCraft over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

What a request does is in sessions.py, the rules of the game are in world.py. Extensions to the public contract:
GET /split gives the goal indices of the fixed train/test split; GET /about names the set of goals and the extensions;
POST /fork copies a session; POST /replay resets a session and executes actions in one request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import Actions, GoalIndex, SessionId, json_answer, new_app, running
from mcts_utils.servers.contract import SessionBody, StepBody, add_facts
from mcts_utils.servers.session_store import IDLE_SECONDS, MAX_SESSIONS
from mcts_utils.servers.textcraft.sessions import Sessions
from mcts_utils.servers.textcraft.world import load_world


class CreateBody(BaseModel):
    """Body of /create. The contract has both fields, and the public server ignores both."""

    commands: str | None = None
    goal: str | None = None


class ResetBody(SessionBody):
    """Body of /reset."""

    data_idx: GoalIndex | None = 0


class ReplayBody(ResetBody):
    """Body of /replay."""

    actions: Actions


def create_app(
    idle_seconds: float = IDLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    max_sessions: int = MAX_SESSIONS,
) -> FastAPI:
    """Return the server as an ASGI app with its own sessions; arguments as SessionStore."""
    app = new_app("TextCraft")
    sessions = Sessions(load_world(), idle_seconds, clock, max_sessions)
    app.state.store = sessions.store
    _add_public_routes(app, sessions)
    _add_extensions(app, sessions)
    return app


def _add_public_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add AgentGym's routes. Handlers are coroutines: a step is too short for a thread."""
    add_facts(app, {"/": "This is environment TextCraft."})

    @app.post("/create")
    async def create(body: CreateBody) -> Response:
        return json_answer(sessions.create)

    @app.post("/reset")
    async def reset(body: ResetBody) -> Response:
        return json_answer(sessions.reset, body.id, body.data_idx)

    @app.post("/step")
    async def step(body: StepBody) -> Response:
        return json_answer(sessions.step, body.id, body.action)

    @app.get("/observation")
    async def observation(id: SessionId) -> Response:
        return json_answer(lambda: sessions.detail(id)["observation"])

    @app.get("/detail")
    async def detail(id: SessionId) -> Response:
        return json_answer(sessions.detail, id)

    @app.get("/commands")
    @app.get("/goal")
    async def broken_on_the_public_server(id: SessionId) -> Response:
        return PlainTextResponse("Internal Server Error", status_code=500)

    @app.post("/close")
    async def close(body: SessionBody) -> Response:
        return json_answer(sessions.close, body.id)


def _add_extensions(app: FastAPI, sessions: Sessions) -> None:
    """Add the routes that the public server does not have."""
    world = sessions.world
    about = {
        "env": "textcraft",
        "kind": f"agent-r-textcraft-{world.digest()}",
        "goals": len(world.goals),
        "extensions": ["fork", "replay"],
    }
    add_facts(app, {"/about": about, "/split": world.split()})

    @app.post("/fork")
    async def fork(body: SessionBody) -> Response:
        return json_answer(sessions.fork, body.id)

    @app.post("/replay")
    def replay(body: ReplayBody) -> Response:
        return json_answer(sessions.replay, body.id, body.data_idx, body.actions)


@contextmanager
def running_server() -> Iterator[str]:
    """Serve on 127.0.0.1 from a thread of this process during a `with` block; yield the base URL."""
    with running(create_app()) as base_url:
        yield base_url
