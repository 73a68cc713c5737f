"""A mock LLM: an OpenAI-compatible chat endpoint that answers with a bundled environment's scripted expert.

    python -m mcts_utils.servers.mock_llm --port 8000 --latency 0.05 --slots 16 --noise 0.3 --env textcraft

For tests and benchmarks of clients of an endpoint; it runs no model. It answers GET /v1/models, POST
/v1/chat/completions (n, seed, temperature, usage), GET /stats and GET /metrics (load_stats.py), and fails on demand:
`--ignore_n`, `--fail 429 --fail_every 5` (also 500, 503, or `drop`: the connection is closed without an answer),
`--queue` (429 for requests that would wait).
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
from typing import Annotated, Any

import msgspec

from mcts_utils.servers.mock_llm.dialects import REFUSALS, SHAPES
from mcts_utils.servers.mock_llm.http_server import HttpServer, Request
from mcts_utils.servers.mock_llm.load_stats import LoadStats
from mcts_utils.servers.mock_llm.tool_dialects import in_text
from mcts_utils.servers.yours.expert import Expert
from mcts_utils.servers.yours.source import FORMS, SourceError, is_source, name_of

ENVS = ("textcraft", "sciworld", "webshop")  # environments with an expert
Policy = Callable[[list[dict], random.Random], str]  # (messages, rng) -> one reply


def model_name(env: str) -> str:
    """Return the endpoint's name of its model."""
    return f"{name_of(env) if is_source(env) else env}-expert"


def expert_of(env: str) -> Callable[[list[dict], random.Random, float], str]:
    """Return the function that answers in an environment of ENVS, or in one of yours.

    Raises:
        SourceError: there is no such environment, or it has no expert.
    """
    if is_source(env):
        return Expert(env).answer
    if env not in ENVS:
        raise SourceError(f"must be one of {', '.join(ENVS)}, or {FORMS}: {env!r}")
    return importlib.import_module(f"mcts_utils.servers.{env}.expert").answer


MODEL = model_name("textcraft")


@dataclass(frozen=True)
class Behaviour:
    """How the endpoint acts. Failures hit every `fail_every`-th chat request."""

    latency: float = 0.0  # seconds per request, all n samples together
    slots: int = 16  # requests worked on at once; others queue
    noise: float = 0.0  # probability of a slip, and of a random verdict
    ignore_n: bool = False  # one choice, whatever n is
    refuse: tuple[str, ...] = ()  # request parameters that are answered with 400
    like: tuple[str, ...] = ()  # keys of dialects.REFUSALS and dialects.SHAPES
    fail: str = "500"  # the status of failures, or "drop"
    fail_every: int = 0  # 0: never
    retry_after: str = ""  # seconds in the header of failures
    queue: int = -1  # requests that may wait for a slot, others get a 429; -1: any number
    context: int = 0  # tokens (about 4 characters each) that fit; 0: any number
    api_key: str = ""  # that requests must carry, if set
    env: str = "textcraft"  # the environment whose expert answers
    paid: str = ""  # a file that grows by one byte before each answer is sent, also over restarts


class ChatServer(HttpServer):
    """The endpoint. `behaviour` and `policy` may be replaced while it runs, but not the number of slots.

    The experts answer on the loop's thread. A given policy may block, so it has a thread for every slot.
    """

    def __init__(
        self,
        port: int = 0,
        behaviour: Behaviour | None = None,
        policy: Policy | None = None,
        record: bool = True,
    ) -> None:
        """Listen at once; requests are answered once `serve` runs.

        Args:
            port: 0 takes a free one.
            behaviour: how the endpoint acts.
            policy: gives the replies instead of the environment's expert.
            record: keep the body of every chat request in `requests`.

        Raises:
            OSError, OverflowError: as HttpServer.
        """
        self.behaviour = behaviour or Behaviour()
        self._expert = expert_of(self.behaviour.env)
        super().__init__(port)
        self.policy = policy
        self.requests: list[dict] = []  # bodies of the chat requests so far
        self.load = LoadStats(self.behaviour.slots)
        self._record = record
        self._waiting: deque[tuple[Request, dict, bool]] = deque()
        self._threads = ThreadPoolExecutor(self.behaviour.slots, thread_name_prefix="policy")

    @property
    def base_url(self) -> str:
        """The value for OPENAI_BASE_URL."""
        return f"http://127.0.0.1:{self.port}/v1"

    def stats(self) -> dict[str, Any]:
        """Return the counts so far, as LoadStats.stats."""
        return self.load.stats()

    def handle(self, request: Request) -> None:
        key, given = self.behaviour.api_key, request.headers.get("authorization", "")
        route = f"{request.method} {request.path}"
        if route == "GET /health":
            request.send(200, {"status": "ok"})
        elif route == "GET /stats":
            request.send(200, self.stats())
        elif route == "GET /metrics":
            request.send(200, self.load.metrics(), {"Content-Type": "text/plain"})
        elif route not in ("GET /v1/models", "POST /v1/chat/completions"):
            refuse(request, 404, f"no route {request.path}")
        elif key and given != f"Bearer {key}":
            refuse(request, 401, f"Incorrect API key provided: {given.removeprefix('Bearer ')}")
        elif request.method == "GET":
            name = model_name(self.behaviour.env)
            model = {"id": name, "object": "model", "created": 0, "owned_by": "test"}
            request.send(200, {"object": "list", "data": [model]})
        else:
            try:
                body = chat_request(request.body)
            except (ValueError, RecursionError) as error:
                return refuse(request, 400, f"the body is not a chat request: {error}")
            self._chat(request, body)

    def _chat(self, request: Request, body: dict) -> None:
        behaviour = self.behaviour
        if self._record:
            self.requests.append(body)
        fails = self.load.arrived(behaviour.fail_every)
        unknown = [name for name in behaviour.refuse if name in body]
        if unknown:
            instead = " Use 'max_completion_tokens' instead." if unknown[0] == "max_tokens" else ""
            return refuse(request, 400, f"Unsupported parameter: '{unknown[0]}'.{instead}")
        for name in behaviour.like:
            if name in REFUSALS and (refusal := REFUSALS[name](body)):
                return request.send(*refusal)
        if behaviour.context and len(json.dumps(body["messages"])) // 4 > behaviour.context:
            return refuse(request, 400, f"This model's maximum context length is {behaviour.context} tokens.")
        if fails and behaviour.fail == "drop":
            return request.drop()
        if 0 <= behaviour.queue <= len(self._waiting) and self.load.busy == self.load.slots:
            return refuse(request, 429, "too many requests", behaviour.retry_after)
        self._waiting.append((request, body, fails))
        self._admit()

    def _admit(self) -> None:
        """Give free slots to waiting requests."""
        while self._waiting and self.load.busy < self.load.slots:
            self.load.shift(1)
            self.loop.call_later(self.behaviour.latency, self._work, *self._waiting.popleft())

    def _work(self, request: Request, body: dict, fails: bool) -> None:
        if fails:
            self._free()
            refuse(request, int(self.behaviour.fail), "injected failure", self.behaviour.retry_after)
        elif self.policy is None:
            try:
                answer = self.complete(body)
            except Exception as error:  # an expert reads the chats of its own environment only
                self._free()
                return refuse(
                    request, 400, f"the expert cannot answer this chat: {type(error).__name__}: {error}"
                )
            self._finish(request, answer)
        else:
            future = self._threads.submit(self.complete, body)
            future.add_done_callback(
                lambda done: self.loop.call_soon_threadsafe(self._policy_done, request, done)
            )

    def _policy_done(self, request: Request, done: Future[Any]) -> None:
        """Send a policy's answer; an error in the policy closes the connection."""
        if done.exception() is None:
            return self._finish(request, done.result())
        self._free()
        request.drop()

    def _finish(self, request: Request, answer: Any) -> None:
        self._free()
        if self.behaviour.paid:
            with open(self.behaviour.paid, "ab", buffering=0) as file:
                file.write(b".")
        request.send(200, answer)
        self.load.answered()

    def _free(self) -> None:
        self.load.shift(-1)
        self._admit()

    def complete(self, body: dict) -> Any:
        """Return the answer to a chat request."""
        messages, seed, temperature = body["messages"], body.get("seed"), body.get("temperature", 1.0)
        text = json.dumps(messages)
        messages = in_text(messages)
        self.load.prompt(text)
        n = 1 if self.behaviour.ignore_n else int(body.get("n") or 1)
        replies = []
        for i in range(n):
            unseeded = bool(temperature) and seed is None
            key = f"{text}|{seed}|{i}" if temperature else text
            rng = random.Random() if unseeded else random.Random(hashlib.sha256(key.encode()).digest())
            noise = self.behaviour.noise
            replies.append(self.policy(messages, rng) if self.policy else self._expert(messages, rng, noise))
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
        usage = {"prompt_tokens": prompt, "completion_tokens": completion}
        usage["total_tokens"] = prompt + completion
        answer: Any = {
            "id": "chat", "object": "chat.completion", "created": 0, "model": body.get("model", MODEL),
            "choices": choices, "usage": usage,
        }  # fmt: skip
        for name in self.behaviour.like:
            answer = SHAPES[name](body, answer) if name in SHAPES else answer
        return answer

    def close(self) -> None:
        """Stop serving and end the policies' threads."""
        self.stop()
        self._threads.shutdown(wait=False, cancel_futures=True)


class ChatMessage(msgspec.Struct):
    """A turn of a chat."""

    role: str
    content: str | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat request that are read here, with their bounds."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    model: str = MODEL
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    max_completion_tokens: Annotated[int, msgspec.Meta(ge=1, le=10**9)] | None = None
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    seed: int | None = None


def chat_request(raw: bytes) -> dict:
    """Return the body of a chat request.

    Raises:
        ValueError, RecursionError: it is not one; the message names the field.
    """
    msgspec.json.decode(raw, type=ChatRequest)
    return json.loads(raw)


def refuse(request: Request, status: int, text: str, retry_after: str = "") -> None:
    """Answer with an error in the shape of the OpenAI protocol."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    request.send(status, {"error": {"message": text, "type": "error", "code": status}}, headers)


@contextmanager
def running_chat(behaviour: Behaviour | None = None, policy: Policy | None = None) -> Iterator[ChatServer]:
    """Run the endpoint on a free port of 127.0.0.1 during a `with` block."""
    server = ChatServer(0, behaviour, policy)
    server.start()
    try:
        yield server
    finally:
        server.close()
