"""ASGI middleware of the bundled servers: the token, web pages of other machines, GET /health and GET /metrics.

The check of the Host header and the limit of bodies are those of Starlette and FastAPI (app_server.py).
"""

from __future__ import annotations

import base64
import secrets
import time
from collections import Counter

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcts_utils.servers.sockets import is_foreign


class Gate:
    """It answers or refuses a request, or hands it to the app, and counts it."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        """An empty token lets every request pass that is not a foreign web page's."""
        self._app, self._token = app, token
        self._answers: Counter[int] = Counter()  # by status
        self._open = 0  # requests
        self._started = time.time()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answers[message["status"]] += 1
            await send(message)

        self._open += 1
        try:
            await self._handler(scope)(scope, receive, counted)
        except Exception:
            self._answers[500] += 1  # sent further outside
            raise
        finally:
            self._open -= 1

    def _handler(self, scope: Scope) -> ASGIApp:
        """Return what answers the request."""
        route = scope["method"], scope["path"]
        if route == ("GET", "/health"):
            return JSONResponse({"status": "ok"})
        headers = Headers(scope=scope)
        if self._token:
            if not secrets.compare_digest(_given(headers.get("authorization", "")), self._token.encode()):
                return JSONResponse(
                    {"detail": "the token is missing or wrong"}, 401, {"WWW-Authenticate": "Bearer"}
                )
        elif is_foreign(headers.get("origin", "")):
            return JSONResponse({"detail": "web pages of other machines are refused"}, 403)
        return PlainTextResponse(self._metrics(scope)) if route == ("GET", "/metrics") else self._app

    def _metrics(self, scope: Scope) -> str:
        """Return the counts in Prometheus' text format."""
        lines = [
            f'agent_r_answers_total{{status="{status}"}} {n}' for status, n in sorted(self._answers.items())
        ]
        lines += [f"agent_r_requests_open {self._open}"]
        store = getattr(scope["app"].state, "store", None)
        if store is not None:
            with store.lock:
                lines += [f"agent_r_sessions {len(store.ids())}"]
            lines += [f"agent_r_sessions_max {store.max_sessions}"]
        lines += [f"process_start_time_seconds {self._started:.3f}"]
        lines += [f"process_cpu_seconds_total {time.process_time():.3f}"]
        return "\n".join(lines) + "\n"


def _given(authorization: str) -> bytes:
    """Return the token of a header: `Bearer TOKEN`, or Basic with it as the password, as in http://any:TOKEN@host."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return value.encode()
    try:
        return base64.b64decode(value).partition(b":")[2]
    except ValueError:
        return b""
