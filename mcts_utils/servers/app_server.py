"""What the bundled servers share: a quiet uvicorn on a given socket, the command line, answers by contract.

It knows no environment. Nothing is authenticated and nothing is stored: bind a server to 127.0.0.1.
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

IDLE_SECONDS = 3600.0
KEEP_ALIVE_SECONDS = 120  # longer than a client keeps an idle connection: it never writes to a closed one
SHUTDOWN_SECONDS = 2  # for requests in flight
START_SECONDS = 120  # far more than starting or stopping takes, even on a busy machine
BACKLOG = 2048  # connections that may wait to be accepted


def answered(call: Callable[..., Any], *args: Any) -> Response:
    """The call's result as JSON; what goes wrong inside it is, by contract, a 200 with {"error": text}."""
    try:
        return JSONResponse(call(*args))
    except (LookupError, TypeError, ValueError) as error:
        return JSONResponse({"error": str(error)})


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
def running(app: FastAPI, port: int = 0) -> Iterator[str]:
    """The app served by a thread of this process for the time of a `with` block, on 127.0.0.1; gives its base URL.

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


def parser(module: str, port: int, about: str | None) -> argparse.ArgumentParser:
    """The flags that every bundled server has; `module` is its name below servers/, `port` its usual port."""
    flags = argparse.ArgumentParser(prog=f"python -m mcts_utils.servers.{module}", description=about)
    flags.add_argument("--port", type=int, default=port, help="0 takes a free one; the printed line names it")
    flags.add_argument("--host", default="127.0.0.1")
    flags.add_argument(
        "--idle_seconds", type=float, default=IDLE_SECONDS, help="close sessions unused for so long"
    )
    return flags


def serve(args: argparse.Namespace, create_app: Callable[[], FastAPI]) -> int:
    """Serve until SIGTERM or SIGINT; the exit code. One line on stdout says where, once connections are accepted.

    The port is taken before the app is made, so a port in use is told at once. The app's own shutdown handlers
    run at the end.
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
        # Covers a signal before uvicorn sets its own handlers; it also raises each one again here after its clean end.
        server.should_exit = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    server.run([listener])
    return 0
