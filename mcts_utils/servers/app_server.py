"""Shared parts of the bundled servers: uvicorn on a given socket, the command line, JSON answers with error texts.

It knows no environment. Nothing is authenticated and nothing is stored, so bind a server to 127.0.0.1.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from mcts_utils.servers.sockets import listen

IDLE_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 120  # longer than a client keeps an idle connection, so it never writes to a closed one
SHUTDOWN_SECONDS = 2  # for requests in flight
START_SECONDS = 120  # far more than starting or stopping takes, even on a busy machine


def json_answer(call: Callable[..., Any], *args: Any) -> Response:
    """Return the call's result as JSON; an error in it becomes, by AgentGym's contract, a 200 with {"error": text}."""
    try:
        return JSONResponse(call(*args))
    except (LookupError, TypeError, ValueError, OSError) as error:
        return JSONResponse({"error": str(error)})


class Server(uvicorn.Server):
    """A uvicorn server without an access log; it calls `ready` once it accepts connections."""

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


@contextmanager
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """Serve the app on 127.0.0.1 from a thread of this process during a `with` block; yield its base URL.

    Raises:
        OSError: the port is in use.
    """
    listener = listen("127.0.0.1", port)
    ready = threading.Event()
    server = Server(app, ready.set)
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


def argument_parser(module: str, port: int, about: str | None) -> argparse.ArgumentParser:
    """Return a parser of the flags that all bundled servers have.

    Args:
        module: the server's name below mcts_utils.servers.
        port: its default port.
        about: the description that --help prints.
    """
    parser = argparse.ArgumentParser(prog=f"python -m mcts_utils.servers.{module}", description=about)
    parser.add_argument(
        "--port", type=int, default=port, help="0 takes a free one; the printed line names it"
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--idle_seconds", type=float, default=IDLE_SECONDS, help="close sessions unused for longer"
    )
    return parser


def serve(args: argparse.Namespace, create_app: Callable[[], FastAPI]) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code: 0, or 2 after a bad flag, with one line on stderr.

    Prints one line with the URL on stdout once connections are accepted. The port is taken before the app is made,
    so a port in use is reported at once. The app's own shutdown handlers run at the end.
    """
    if not args.idle_seconds > 0:
        print(f"--idle_seconds must be positive, not {args.idle_seconds}", file=sys.stderr)
        return 2
    try:
        listener = listen(args.host, args.port)
    except (OSError, OverflowError) as error:
        print(f"--port {args.port}: cannot listen on {args.host}:{args.port}: {error}", file=sys.stderr)
        return 2
    url = f"http://{args.host}:{listener.getsockname()[1]}"
    app = create_app()
    server = Server(app, lambda: print(f"{app.title} server on {url}", flush=True))

    def stop(signum: int, frame: object) -> None:
        # For a signal that comes before uvicorn sets its own handlers. uvicorn also raises the signals that it handled
        # again after its clean shutdown, and they end here.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run([listener])
    return 0
