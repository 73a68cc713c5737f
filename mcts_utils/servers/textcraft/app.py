"""TextCraft over HTTP, in AgentGym's contract: routes, fields, statuses and error texts of its public server.

The players are in sessions.py, the rules of the game in world.py. Ours alone: GET /split gives the goal indices of the
fixed train/test split. Nothing is authenticated and nothing is stored: bind it to 127.0.0.1.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from mcts_utils.servers.textcraft.sessions import Sessions
from mcts_utils.servers.textcraft.world import load_world

IDLE_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 120  # longer than a client keeps an idle connection: it never writes to a closed one
SHUTDOWN_SECONDS = 2  # for requests in flight
START_SECONDS = 120  # far more than starting or stopping takes, even on a busy machine
BACKLOG = 2048  # connections that may wait to be accepted


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


class CloseBody(BaseModel):
    """Body of /close."""

    id: int


def answered(call: Callable[..., Any], *args: Any) -> Response:
    """The call's result as JSON; what goes wrong inside it is, by contract, a 200 with {"error": text}."""
    try:
        return JSONResponse(call(*args))
    except (LookupError, TypeError, ValueError) as error:
        return JSONResponse({"error": str(error)})


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
    async def close(body: CloseBody) -> Response:
        return answered(sessions.close, body.id)

    @app.get("/split")
    async def train_test_split() -> Response:
        return JSONResponse(split)

    return app


class Server(uvicorn.Server):
    """uvicorn, quiet, that calls `ready` once it accepts connections."""

    def __init__(self, app: FastAPI, ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; port 0 takes a free one.

    Raises:
        OSError: the port is in use, or the host is none of this machine.
        OverflowError: no such port number.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off (40 ms an answer) only where it is.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@contextmanager
def running_server(port: int = 0, idle_seconds: float = IDLE_SECONDS) -> Iterator[str]:
    """A server in a thread of this process for the time of a `with` block, on 127.0.0.1; gives its base URL.

    Raises:
        OSError: the port is in use.
    """
    listener = listen("127.0.0.1", port)
    ready = threading.Event()
    server = Server(create_app(idle_seconds), ready.set)
    thread = threading.Thread(target=server.run, args=([listener],), name="textcraft-server", daemon=True)
    thread.start()
    try:
        if not ready.wait(START_SECONDS):
            raise RuntimeError("the TextCraft server did not start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()
