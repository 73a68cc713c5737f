"""A stand-in for an LLM: an OpenAI-compatible chat endpoint that plays TextCraft by plan, with slips. No model here.

    python -m mcts_utils.servers.chat --port 8000 --latency 0.05 --slots 16 --noise 0.3

For tests and benchmarks of whatever talks to an endpoint. It answers GET /v1/models, POST /v1/chat/completions (n,
seed, temperature, usage) and GET /stats (how many slots were busy for how long), and fails on demand: `--ignore_n`,
`--fail 429 --fail_every 5` (also 500, or `drop`: the connection is closed without an answer).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from mcts_utils.servers.textcraft.expert import answer

MODEL = "textcraft-expert"
Policy = Callable[[list[dict], random.Random], str]  # (messages, rng) -> one reply


@dataclass(frozen=True)
class Behaviour:
    """How the endpoint acts. Failures hit every `fail_every`-th chat request."""

    latency: float = 0.0  # seconds per request, all n samples together
    slots: int = 16  # requests worked on at once; others queue
    noise: float = 0.0  # chance of a slip, and of a wrong verdict
    ignore_n: bool = False
    refuse: tuple[str, ...] = ()  # parameters that are answered with 400
    fail: str = "500"  # a status, or "drop"
    fail_every: int = 0  # 0: never
    retry_after: str = ""  # header of failures
    context: int = 0  # tokens (about 4 characters each) that fit; 0: any number
    api_key: str = ""  # required, if set


class ChatServer(ThreadingHTTPServer):
    """The endpoint; `behaviour` and `policy` may be replaced while it runs."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(
        self, port: int = 0, behaviour: Behaviour | None = None, policy: Policy | None = None
    ) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.behaviour = behaviour or Behaviour()
        self.policy = policy or (lambda messages, rng: answer(messages, rng, self.behaviour.noise))
        self.requests: list[dict] = []  # bodies of the chat requests so far
        self._slots = threading.Semaphore(self.behaviour.slots)
        self._lock = threading.Lock()
        self._seconds = [0.0] * (self.behaviour.slots + 1)  # by number of busy slots
        self._busy, self._since = 0, time.monotonic()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the slots; waits for it."""
        with self._slots:
            self._count(1)
            try:
                yield
            finally:
                self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            now = time.monotonic()
            self._seconds[self._busy] += now - self._since
            self._busy, self._since = self._busy + step, now

    def admit(self, body: dict) -> bool:
        """Record a request; true if it is one that has to fail."""
        with self._lock:
            self.requests.append(body)
            every = self.behaviour.fail_every
            return bool(every) and len(self.requests) % every == 0

    def stats(self) -> dict[str, Any]:
        """requests; busy_seconds[k]: seconds with k slots busy; mean_busy over the seconds with any."""
        self._count(0)
        with self._lock:
            active = sum(self._seconds[1:])
            load = sum(k * seconds for k, seconds in enumerate(self._seconds))
            return {
                "requests": len(self.requests),
                "busy_seconds": [round(seconds, 3) for seconds in self._seconds],
                "mean_busy": round(load / active, 2) if active else 0.0,
                "max_busy": max((k for k, seconds in enumerate(self._seconds) if seconds), default=0),
            }

    def complete(self, body: dict) -> dict:
        """The answer to a chat request."""
        messages, seed, temperature = body["messages"], body.get("seed"), body.get("temperature", 1.0)
        text = json.dumps(messages)
        n = 1 if self.behaviour.ignore_n else int(body.get("n") or 1)
        replies = []
        for i in range(n):
            free = bool(temperature) and seed is None
            key = f"{text}|{seed}|{i}" if temperature else text
            rng = random.Random() if free else random.Random(hashlib.sha256(key.encode()).digest())
            replies.append(self.policy(messages, rng))
        limit = 4 * (body.get("max_tokens") or body.get("max_completion_tokens") or 10**6)  # characters
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": reply[:limit]},
                "finish_reason": "length" if len(reply) > limit else "stop",
            }
            for i, reply in enumerate(replies)
        ]
        prompt, completion = len(text) // 4, sum(len(r[:limit]) // 4 + 1 for r in replies)
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
        return {
            "id": "chat", "object": "chat.completion", "created": 0, "model": body.get("model", MODEL),
            "choices": choices, "usage": usage,
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ChatServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        if not self._authorized():
            return
        if self.path == "/v1/models":
            model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "test"}
            self._send(200, {"object": "list", "data": [model]})
        elif self.path == "/stats":
            self._send(200, self.server.stats())
        else:
            self._refuse(404, f"no route {self.path}")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path != "/v1/chat/completions":
            return self._refuse(404, f"no route {self.path}")
        if not self._authorized():
            return
        try:
            body = json.loads(raw)
            messages = body["messages"]
            fine = messages and all(
                isinstance(m[name], str) for m in messages for name in ("role", "content")
            )
        except (ValueError, KeyError, TypeError):
            fine = False
        if not fine:
            return self._refuse(400, "the body is not a chat request")
        self._chat(body)

    def _chat(self, body: dict) -> None:
        server, how = self.server, self.server.behaviour
        fails = server.admit(body)
        unknown = [name for name in how.refuse if name in body]
        if unknown:
            instead = " Use 'max_completion_tokens' instead." if unknown[0] == "max_tokens" else ""
            return self._refuse(400, f"Unsupported parameter: '{unknown[0]}'.{instead}")
        if how.context and len(json.dumps(body["messages"])) // 4 > how.context:
            return self._refuse(400, f"This model's maximum context length is {how.context} tokens.")
        if fails and how.fail == "drop":
            self.close_connection = True
            return
        with server.slot():
            time.sleep(how.latency)
            if fails:
                return self._refuse(int(how.fail), "injected failure", how.retry_after)
            answered = server.complete(body)
        self._send(200, answered)

    def _authorized(self) -> bool:
        key = self.server.behaviour.api_key
        given = self.headers.get("authorization", "")
        if key and given != f"Bearer {key}":
            self._refuse(401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")
            return False
        return True

    def _refuse(self, status: int, text: str, retry_after: str = "") -> None:
        headers = {"Retry-After": retry_after} if retry_after else {}
        self._send(status, {"error": {"message": text, "type": "error", "code": status}}, headers)

    def _send(self, status: int, content: dict, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        fixed = {"Content-Type": "application/json", "Content-Length": str(len(data))}
        for name, value in {**fixed, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """No access log."""


@contextmanager
def running_chat(behaviour: Behaviour | None = None, policy: Policy | None = None) -> Iterator[ChatServer]:
    """The endpoint on a free port of 127.0.0.1, for the length of a `with`."""
    server = ChatServer(0, behaviour, policy)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def main() -> int:
    parser = argparse.ArgumentParser(
        description="An OpenAI-compatible chat endpoint for tests and benchmarks."
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds per request")
    parser.add_argument("--slots", type=int, default=16, help="requests worked on at once")
    parser.add_argument(
        "--noise", type=float, default=0.0, help="chance of a slip per turn, and of a wrong verdict"
    )
    parser.add_argument("--ignore_n", action="store_true", help="one choice, whatever n says")
    parser.add_argument("--fail", choices=("429", "500", "503", "drop"), default="500")
    parser.add_argument("--fail_every", type=int, default=0, help="every how many requests; 0: never")
    parser.add_argument("--context", type=int, default=0, help="tokens that fit; 0: any number")
    options = vars(parser.parse_args())
    port = options.pop("port")
    try:
        server = ChatServer(port, Behaviour(**options))
    except (OSError, OverflowError) as error:
        print(f"--port {port}: {error}", file=sys.stderr)
        return 2
    with server:
        print(f"{MODEL} at {server.base_url}", file=sys.stderr)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print(json.dumps(server.stats()), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
