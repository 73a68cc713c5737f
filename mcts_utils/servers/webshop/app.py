"""WebShop over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

The players are in sessions.py, the pages in engine.py and pages.py. Ours alone: POST /close (the public server has no
such route), GET /split gives the goal indices of the fixed train/test split, GET /about which goals these are and what
the server can do more: POST /fork copies a session, POST /replay resets one and plays actions in one request. A goal
that nobody chose (after /create, or a reset without session_id) is the next one in order; the public server draws one.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import IDLE_SECONDS, running
from mcts_utils.servers.webshop.sessions import Sessions
from mcts_utils.servers.webshop.shop import AGENTGYM, Shop, bundled_shop


class SessionBody(BaseModel):
    """Body of /fork and /close."""

    env_idx: int


class StepBody(BaseModel):
    """Body of /step."""

    env_idx: int
    action: str


class ResetBody(BaseModel):
    """Body of /reset; `session_id` is the goal's index."""

    env_idx: int
    session_id: int | None = None


class ReplayBody(ResetBody):
    """Body of /replay."""

    actions: list[str]


def answered(call: Callable[..., Any], *args: Any) -> Response:
    """The call's result as JSON; an unknown id or index is, by contract, a 500 without a word why."""
    try:
        return JSONResponse(call(*args))
    except LookupError:
        return PlainTextResponse("Internal Server Error", status_code=500)


def create_app(
    shop: Shop | None = None,
    idle_seconds: float = IDLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
) -> FastAPI:
    """The server as an ASGI app with sessions of its own; without a shop, of the synthetic catalogue.

    `rng` draws the ids of the sessions; without one, no two servers give the same.
    """
    app = FastAPI(title="WebShop")
    shop = shop or bundled_shop()
    sessions = Sessions(shop, idle_seconds, clock, rng or random.Random())
    _contract(app, sessions)
    _extensions(app, sessions)
    return app


def _contract(app: FastAPI, sessions: Sessions) -> None:
    """AgentGym's routes. Handlers are coroutines: a step is too short for a thread."""

    @app.get("/")
    async def hello() -> Response:
        return JSONResponse("ok")

    @app.get("/list_envs")
    async def list_envs() -> Response:
        return answered(sessions.ids)

    @app.post("/create")
    async def create() -> Response:
        return answered(sessions.create)

    @app.post("/reset")
    async def reset(body: ResetBody) -> Response:
        return answered(lambda: [sessions.reset(body.env_idx, body.session_id), None])

    @app.post("/step")
    async def step(body: StepBody) -> Response:
        return answered(sessions.step, body.env_idx, body.action)

    @app.get("/observation")
    async def observation(env_idx: int) -> Response:
        return answered(lambda: sessions.look(env_idx).page().text)

    @app.get("/available_actions")
    async def available_actions(env_idx: int) -> Response:
        def listed() -> dict[str, Any]:
            page = sessions.look(env_idx).page()
            return {"has_search_bar": page.search_bar, "clickables": list(page.clicks)}

        return answered(listed)

    @app.get("/instruction_text")
    async def instruction_text(env_idx: int) -> Response:
        return answered(lambda: sessions.look(env_idx).instruction())

    @app.get("/state")
    async def state(env_idx: int) -> Response:
        # The public server answers the names of the fields in place of their values.
        return answered(
            lambda: sessions.look(env_idx) and {k: k for k in ("url", "html", "instruction_text")}
        )


def _extensions(app: FastAPI, sessions: Sessions) -> None:
    """What the public server does not have."""
    shop = sessions.shop
    about = {"env": "webshop", "kind": shop.kind, "goals": len(shop.goals), "extensions": ["fork", "replay"]}

    @app.post("/close")
    async def close(body: SessionBody) -> Response:
        return answered(sessions.close, body.env_idx)

    @app.post("/fork")
    async def fork(body: SessionBody) -> Response:
        return answered(lambda: {"env_idx": sessions.fork(body.env_idx)})

    @app.post("/replay")
    async def replay(body: ReplayBody) -> Response:
        return answered(sessions.replay, body.env_idx, body.session_id, body.actions)

    @app.get("/about")
    async def what_this_is() -> Response:
        return JSONResponse(about)

    if shop.kind != AGENTGYM:  # whose split is published: ours would cut across it
        split = shop.split()

        @app.get("/split")
        async def train_test_split() -> Response:
            return JSONResponse(split)


@contextmanager
def running_server(
    port: int = 0, idle_seconds: float = IDLE_SECONDS, shop: Shop | None = None
) -> Iterator[str]:
    """A server in a thread of this process for the time of a `with` block, on 127.0.0.1; gives its base URL.

    Raises:
        OSError: the port is in use.
    """
    with running(create_app(shop, idle_seconds), port) as base_url:
        yield base_url
