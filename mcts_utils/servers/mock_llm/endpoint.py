"""A stand-in for an LLM: an OpenAI-compatible chat endpoint that plays a bundled environment by plan, with slips.

    python -m mcts_utils.servers.mock_llm --port 8000 --latency 0.05 --slots 16 --noise 0.3 --env textcraft

For tests and benchmarks of whatever talks to an endpoint. It answers GET /v1/models, POST /v1/chat/completions (n,
seed, temperature, usage) and GET /stats (load.py: how many slots were busy for how long, what the prompts shared), and
fails on demand: `--ignore_n`, `--fail 429 --fail_every 5` (also 500, 503, or `drop`: closed without an answer),
`--queue` (429 for what would wait). No model here.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import random
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from mcts_utils.servers.mock_llm.http_server import HttpServer, Request
from mcts_utils.servers.mock_llm.load_stats import LoadStats

ENVS = ("textcraft", "sciworld", "webshop")  # those with an expert
Policy = Callable[[list[dict], random.Random], str]  # (messages, rng) -> one reply


def model_name(env: str) -> str:
    """What the endpoint calls its model."""
    return f"{env}-expert"


MODEL = model_name("textcraft")


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
    queue: int = -1  # requests that may wait for a slot, 429 for more; -1: any number
    context: int = 0  # tokens (about 4 characters each) that fit; 0: any number
    api_key: str = ""  # required, if set
    env: str = "textcraft"  # whose expert answers


class ChatServer(HttpServer):
    """The endpoint; `behaviour` and `policy` may be replaced while it runs, the number of slots may not.

    The experts answer on the loop's thread. A policy that is given may block, so it gets a thread for every slot.
    """

    def __init__(
        self,
        port: int = 0,
        behaviour: Behaviour | None = None,
        policy: Policy | None = None,
        record: bool = True,
    ) -> None:
        """`record` keeps every chat request's body in `requests`."""
        self.behaviour = behaviour or Behaviour()
        self._expert = importlib.import_module(f"mcts_utils.servers.{self.behaviour.env}.expert").answer
        super().__init__(port)
        self.policy = policy
        self.requests: list[dict] = []  # bodies of the chat requests so far
        self.load = LoadStats(self.behaviour.slots)
        self._record = record
        self._waiting: deque[tuple[Request, dict, bool]] = deque()
        self._threads = ThreadPoolExecutor(self.behaviour.slots, thread_name_prefix="policy")

    @property
    def base_url(self) -> str:
        """What OPENAI_BASE_URL has to be."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """See Load.stats."""
        return self.load.stats()

    def handle(self, exchange: Request) -> None:
        """See LightServer."""
        key, given = self.behaviour.api_key, exchange.headers.get("authorization", "")
        route = f"{exchange.method} {exchange.path}"
        if route == "GET /stats":
            exchange.send(200, self.stats())
        elif route not in ("GET /v1/models", "POST /v1/chat/completions"):
            refuse(exchange, 404, f"no route {exchange.path}")
        elif key and given != f"Bearer {key}":
            refuse(exchange, 401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")
        elif exchange.method == "GET":
            name = model_name(self.behaviour.env)
            model = {"id": name, "object": "model", "created": 0, "owned_by": "test"}
            exchange.send(200, {"object": "list", "data": [model]})
        elif (body := chat_request(exchange.body)) is None:
            refuse(exchange, 400, "the body is not a chat request")
        else:
            self._chat(exchange, body)

    def _chat(self, exchange: Request, body: dict) -> None:
        how = self.behaviour
        if self._record:
            self.requests.append(body)
        fails = self.load.arrived(how.fail_every)
        unknown = [name for name in how.refuse if name in body]
        if unknown:
            instead = " Use 'max_completion_tokens' instead." if unknown[0] == "max_tokens" else ""
            return refuse(exchange, 400, f"Unsupported parameter: '{unknown[0]}'.{instead}")
        if how.context and len(json.dumps(body["messages"])) // 4 > how.context:
            return refuse(exchange, 400, f"This model's maximum context length is {how.context} tokens.")
        if fails and how.fail == "drop":
            return exchange.drop()
        if 0 <= how.queue <= len(self._waiting) and self.load.busy == self.load.slots:
            return refuse(exchange, 429, "too many requests", how.retry_after)
        self._waiting.append((exchange, body, fails))
        self._admit()

    def _admit(self) -> None:
        """Give free slots to those who wait."""
        while self._waiting and self.load.busy < self.load.slots:
            self.load.shift(1)
            self.loop.call_later(self.behaviour.latency, self._think, *self._waiting.popleft())

    def _think(self, exchange: Request, body: dict, fails: bool) -> None:
        if fails:
            self._free()
            refuse(exchange, int(self.behaviour.fail), "injected failure", self.behaviour.retry_after)
        elif self.policy is None:
            self._finish(exchange, self.complete(body))
        else:
            work = self._threads.submit(self.complete, body)
            work.add_done_callback(lambda done: self.loop.call_soon_threadsafe(self._thought, exchange, done))

    def _thought(self, exchange: Request, done: Future[dict]) -> None:
        """A policy's end; an error in it ends the connection, as in any server."""
        if done.exception() is None:
            return self._finish(exchange, done.result())
        self._free()
        exchange.drop()

    def _finish(self, exchange: Request, answer: dict) -> None:
        self._free()
        exchange.send(200, answer)
        self.load.answered()

    def _free(self) -> None:
        self.load.shift(-1)
        self._admit()

    def complete(self, body: dict) -> dict:
        """The answer to a chat request."""
        messages, seed, temperature = body["messages"], body.get("seed"), body.get("temperature", 1.0)
        text = json.dumps(messages)
        self.load.prompt(text)
        n = 1 if self.behaviour.ignore_n else int(body.get("n") or 1)
        replies = []
        for i in range(n):
            free = bool(temperature) and seed is None
            key = f"{text}|{seed}|{i}" if temperature else text
            rng = random.Random() if free else random.Random(hashlib.sha256(key.encode()).digest())
            replies.append(
                self.policy(messages, rng)
                if self.policy
                else self._expert(messages, rng, self.behaviour.noise)
            )
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

    def close(self) -> None:
        """Stop serving and end the policies' threads."""
        self.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


def chat_request(raw: bytes) -> dict | None:
    """The body of a chat request, or None if it is none."""
    try:
        body = json.loads(raw)
        messages = body["messages"]
        fine = messages and all(isinstance(m[name], str) for m in messages for name in ("role", "content"))
    except (ValueError, KeyError, TypeError):
        return None
    return body if fine else None


def refuse(exchange: Request, status: int, text: str, retry_after: str = "") -> None:
    """An error in the protocol's shape."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    exchange.send(status, {"error": {"message": text, "type": "error", "code": status}}, headers)


@contextmanager
def running_chat(behaviour: Behaviour | None = None, policy: Policy | None = None) -> Iterator[ChatServer]:
    """The endpoint on a free port of 127.0.0.1, for the length of a `with`."""
    server = ChatServer(0, behaviour, policy)
    server.start()
    try:
        yield server
    finally:
        server.close()
