"""Shared parts of the bundled servers: what a request may be, uvicorn on a given socket, the command line.

It knows no environment. docs/security.md says what a server exposes, and to whom.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Annotated, Any

import h11
import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import AfterValidator, Field
from starlette.middleware.trustedhost import TrustedHostMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from mcts_utils import parent
from mcts_utils.servers.gate import Gate
from mcts_utils.servers.session_store import IDLE_SECONDS, MAX_SESSIONS, Full
from mcts_utils.servers.sockets import BODY_BYTES, HEAD_BYTES, LOCAL_HOSTS, SLOW_SECONDS, listen
from mcts_utils.terminal import Parser, between
from mcts_utils.types import InputError

KEEP_ALIVE_SECONDS = 120  # longer than a client keeps an idle connection, so it never writes to a closed one
SHUTDOWN_SECONDS = 2  # for requests in flight
START_SECONDS = 120  # far more than starting or stopping takes, even on a busy machine
SHOWN_ERRORS = 10  # of one request
RETRY_SECONDS = 5  # after which a full server may have room again


def _encodable(text: str) -> str:
    text.encode()  # UnicodeEncodeError, a ValueError, for a lone surrogate
    return text


# Fields of requests. What is out of range is answered with 422.
SessionId = Annotated[int, Field(ge=0, lt=2**53)]
GoalIndex = Annotated[int, Field(ge=-(2**53), lt=2**53)]
Action = Annotated[str, AfterValidator(_encodable)]
Actions = Annotated[list[Action], Field(max_length=10_000)]


def new_app(
    title: str, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
) -> FastAPI:
    """Return an app without routes, which refuses bodies of more than BODY_BYTES and answers bad ones with JSON."""
    app = FastAPI(title=title, lifespan=lifespan, docs_url=None, redoc_url=None, max_body_size=BODY_BYTES)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        # FastAPI's own answer repeats the input, which may be large or no JSON (NaN).
        shown = [
            {key: found[key] for key in ("type", "loc", "msg")} for found in error.errors()[:SHOWN_ERRORS]
        ]
        return JSONResponse({"detail": shown}, 422)

    @app.exception_handler(Full)
    async def full(_: Request, error: Full) -> Response:
        return JSONResponse({"detail": str(error)}, 503, {"Retry-After": str(RETRY_SECONDS)})

    return app


def json_answer(call: Callable[..., Any], *args: Any) -> Response:
    """Return the call's result as JSON; an error in it becomes, by AgentGym's contract, a 200 with {"error": text}."""
    try:
        return JSONResponse(call(*args))
    except (LookupError, TypeError, ValueError, OSError) as error:
        return JSONResponse({"error": str(error)})


class Connection(H11Protocol):
    """A connection that is closed when a request does not arrive as a whole within SLOW_SECONDS."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._limit = self.loop.call_later(SLOW_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            if self._limit is not None:
                self._limit.cancel()
            self._limit = None
        elif self._limit is None:
            self._limit = self.loop.call_later(SLOW_SECONDS, self.transport.abort)

    def shutdown(self) -> None:
        super().shutdown()
        if self._limit is not None:
            self.transport.abort()  # nobody waits for the rest of a request


class Server(uvicorn.Server):
    """A uvicorn server without an access log; it calls `ready` once it accepts connections."""

    def __init__(
        self, app: FastAPI, ready: Callable[[], None], hosts: Sequence[str] = LOCAL_HOSTS, token: str = ""
    ) -> None:
        """`hosts`: what the Host header of a request may name; `*` is anything. `token`: what requests must carry."""
        app.add_middleware(Gate, token=token)
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
        config = uvicorn.Config(
            app,
            http=Connection,
            ws="none",
            log_level="error",  # a warning is what a client did wrong
            access_log=False,
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()


@contextmanager
def running(app: FastAPI, token: str = "") -> Iterator[str]:
    """Serve the app on a free port of 127.0.0.1 from a thread of this process during a `with` block; yield its URL."""
    listener = listen("127.0.0.1", 0)
    ready = threading.Event()
    server = Server(app, ready.set, token=token)
    thread = threading.Thread(target=server.run, args=([listener],), name=f"{app.title}-server", daemon=True)
    thread.start()
    try:
        if not ready.wait(START_SECONDS):
            raise RuntimeError(f"the {app.title} server did not start")
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(START_SECONDS)
        listener.close()


def add_server_flags(parser: argparse.ArgumentParser, port: int) -> None:
    """Add the flags that `serve` reads; `port` is the default one."""
    add = parser.add_argument
    add("--port", type=between(0, 65535), default=port, help="0 takes a free one; the printed line names it")
    add("--host", default="127.0.0.1", help="the address to listen on; a token must guard any other")
    add("--token", help="requests must carry it, but for GET /health; default: the variable SERVER_TOKEN")
    parent.add_flag(parser)


def argument_parser(module: str, port: int, about: str | None) -> Parser:
    """Return a parser of the flags that all bundled environment servers have.

    Args:
        module: the server's name below mcts_utils.servers.
        port: its default port.
        about: the description that --help prints.
    """
    parser = Parser(prog=f"python -m mcts_utils.servers.{module}", description=about)
    add_server_flags(parser, port)
    add = parser.add_argument
    seconds, count = between(0.001, 10**9, float), between(1, 1_000_000)
    add("--idle_seconds", type=seconds, default=IDLE_SECONDS, help="close sessions unused for longer")
    add("--max_sessions", type=count, default=MAX_SESSIONS, help="sessions open at once, at most")
    return parser


def problem(args: argparse.Namespace, token: str, address: str) -> str:
    """Return what is wrong with the token, or an empty text. `address`: what the server listens on."""
    if token and not re.fullmatch(r"[\w.~-]{8,}", token, re.ASCII):
        return "--token must be 8 or more letters, digits, '.', '_', '~' or '-'"
    if not token and not ipaddress.ip_address(address).is_loopback:
        return f"--host {args.host}: other machines reach it, so it needs --token or SERVER_TOKEN"
    return ""


def serve(args: argparse.Namespace, create_app: Callable[[], FastAPI]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code 0; raise InputError naming a bad flag.

    Prints one line with the URL on stdout once connections are accepted. The port is taken before the app is made,
    so a port in use is reported at once. The app's own shutdown handlers run at the end.
    """
    token = os.environ.get("SERVER_TOKEN", "") if args.token is None else args.token
    try:
        listener = listen(args.host, args.port)
    except OSError as error:
        line = f"--port {args.port}: cannot listen on {args.host}:{args.port}: {error}"
        raise InputError(line) from error
    address, port = listener.getsockname()
    if wrong := problem(args, token, address):
        listener.close()
        raise InputError(wrong)
    app = create_app()
    local = ipaddress.ip_address(address).is_loopback
    server = Server(
        app,
        lambda: print(f"{app.title} server on http://{args.host}:{port}", flush=True),
        (*LOCAL_HOSTS, args.host) if local else ("*",),
        token,
    )

    def stop(signum: int, frame: object) -> None:
        # For a signal that comes before uvicorn sets its own handlers. uvicorn also raises the signals that it handled
        # again after its clean shutdown, and they end here.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    parent.end_with(args.end_with)
    server.run([listener])
    return 0
