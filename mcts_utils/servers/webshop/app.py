"""WebShop over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

What a request does is in sessions.py, the pages are in engine.py and pages.py. Extensions to the public contract: POST
/close closes a session; GET /split gives the goal indices of the fixed train/test split; GET /about names the set of
goals and the extensions; POST /fork copies a session; POST /replay resets a session and executes actions in one
request. A session without a chosen goal (after /create, or a reset without session_id) gets the next goal in order; the
public server draws one at random.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.app_server import Action, Actions, GoalIndex, SessionId, new_app, running
from mcts_utils.servers.contract import add_facts
from mcts_utils.servers.session_store import IDLE_SECONDS, MAX_SESSIONS
from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.sessions import Sessions
from mcts_utils.servers.webshop.shop import AGENTGYM, Shop, bundled_shop


class SessionBody(BaseModel):
    """Body of /fork and /close."""

    env_idx: SessionId


class StepBody(BaseModel):
    """Body of /step."""

    env_idx: SessionId
    action: Action


class ResetBody(BaseModel):
    """Body of /reset; `session_id` is the goal's index."""

    env_idx: SessionId
    session_id: GoalIndex | None = None


class ReplayBody(ResetBody):
    """Body of /replay."""

    actions: Actions


def json_or_500(call: Callable[..., Any], *args: Any) -> Response:
    """Return the call's result as JSON; an unknown id or index is, by AgentGym's contract, a 500 without a reason."""
    try:
        return JSONResponse(call(*args))
    except LookupError:
        return PlainTextResponse("Internal Server Error", status_code=500)


def create_app(
    shop: Shop | None = None,
    idle_seconds: float = IDLE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    max_sessions: int = MAX_SESSIONS,
) -> FastAPI:
    """Return the server as an ASGI app with its own sessions; default is the shop of the synthetic catalogue.

    Other arguments as SessionStore.
    """
    app = new_app("WebShop")
    shop = shop or bundled_shop()
    sessions = Sessions(shop, idle_seconds, clock, max_sessions)
    app.state.store = sessions.store
    _add_session_routes(app, sessions)
    _add_read_routes(app, sessions)
    _add_extensions(app, sessions)
    return app


def _add_session_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that open or change a session.

    Handlers are coroutines: a step is too short for a thread.
    """

    add_facts(app, {"/": "ok"})

    @app.get("/list_envs")
    async def list_envs() -> Response:
        return json_or_500(sessions.ids)

    @app.post("/create")
    async def create() -> Response:
        return json_or_500(sessions.create)

    @app.post("/reset")
    async def reset(body: ResetBody) -> Response:
        return json_or_500(lambda: [sessions.reset(body.env_idx, body.session_id), None])

    @app.post("/step")
    async def step(body: StepBody) -> Response:
        return json_or_500(sessions.step, body.env_idx, body.action)


def _add_read_routes(app: FastAPI, sessions: Sessions) -> None:
    """Add the public routes that show a session's state and change nothing."""

    def add(path: str, shown: Callable[[ShopSession], Any]) -> None:
        @app.get(path)
        async def read(env_idx: SessionId) -> Response:
            return json_or_500(lambda: shown(sessions.get(env_idx)))

    def actions(session: ShopSession) -> dict[str, Any]:
        page = session.page()
        return {"has_search_bar": page.search_bar, "clickables": list(page.clicks)}

    add("/observation", lambda session: session.page().text)
    add("/available_actions", actions)
    add("/instruction_text", lambda session: session.instruction())
    # The public server answers with the names of the fields in place of their values.
    add("/state", lambda session: {name: name for name in ("url", "html", "instruction_text")})


def _add_extensions(app: FastAPI, sessions: Sessions) -> None:
    """Add the routes that the public server does not have."""
    shop = sessions.shop
    about = {"env": "webshop", "kind": shop.kind, "goals": len(shop.goals), "extensions": ["fork", "replay"]}
    add_facts(app, {"/about": about})
    if shop.kind != AGENTGYM:  # AgentGym's goals have a published split, which ours would contradict
        add_facts(app, {"/split": shop.split()})

    @app.post("/close")
    async def close(body: SessionBody) -> Response:
        return json_or_500(sessions.close, body.env_idx)

    @app.post("/fork")
    async def fork(body: SessionBody) -> Response:
        return json_or_500(lambda: {"env_idx": sessions.fork(body.env_idx)})

    @app.post("/replay")
    def replay(body: ReplayBody) -> Response:
        return json_or_500(sessions.replay, body.env_idx, body.session_id, body.actions)


@contextmanager
def running_server(shop: Shop | None = None) -> Iterator[str]:
    """Serve on 127.0.0.1 from a thread of this process during a `with` block; yield the base URL."""
    with running(create_app(shop)) as base_url:
        yield base_url
