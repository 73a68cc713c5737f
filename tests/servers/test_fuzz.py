"""Every route of the bundled servers under generated requests: an answer within bounds, and nobody else disturbed.

FUZZ_EXAMPLES=5000: requests for each route and kind of input; a handful without it.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.core.result import Ok

from mcts_utils.servers.app_server import running
from mcts_utils.servers.mock_llm.endpoint import Behaviour, ChatRequest, running_chat
from mcts_utils.servers.sciworld import jvm
from mcts_utils.servers.textcraft.app import running_server as running_textcraft
from mcts_utils.servers.webshop.app import running_server as running_webshop
from mcts_utils.servers.yours.app import create_app
from mcts_utils.servers.yours.world import World

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
GOOD_CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
DEEP = 100_000
# Bodies that no JSON library writes, or that are no JSON.
RAW = (
    b"",
    b"null",
    b"\xff\xfe",
    b"[" * DEEP,
    b'{"id": ' * DEEP,
    b'{"id": 0, "env_idx": 0, "action": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"id": 1' + b"0" * 5000 + b', "action": "x"}',
    b'{"id": NaN, "env_idx": NaN, "n": NaN, "messages": NaN}',
    b'{"id": 1e999, "env_idx": -1e999, "data_idx": 1e999}',
    b'{"id": -1, "env_idx": -1, "action": "x"}',
    b'{"id": 0, "env_idx": 0, "action": "\\ud800", "actions": ["\\udfff"], "data_idx": 0}',
    json.dumps({**GOOD_CHAT, "messages": [{"role": "user", "content": "\ud800"}]}).encode(),
    json.dumps({**GOOD_CHAT, "n": "abc", "seed": {}}).encode(),
    json.dumps({**GOOD_CHAT, "n": 10**12, "max_tokens": -1}).encode(),
)


@contextmanager
def running_sciworld() -> Iterator[str]:
    """The server in this process, so that its log can be read."""
    from mcts_utils.servers.sciworld.app import create_app as create_sciworld
    from mcts_utils.servers.sciworld.pool import Pool

    setup = jvm.Setup()
    with running(create_sciworld(Pool(1, setup, jvm.check(setup)))) as url:
        yield url


@contextmanager
def running_mock() -> Iterator[str]:
    with running_chat(Behaviour(slots=2)) as server:
        yield f"http://127.0.0.1:{server.port}"


@contextmanager
def running_yours() -> Iterator[str]:
    with running(create_app(World("tests/helpers/broken_worlds.py:Counter"))) as url:
        yield url


SERVERS: dict[str, Callable[[], Any]] = {
    "textcraft": running_textcraft,
    "webshop": running_webshop,
    "sciworld": running_sciworld,
    "mock_llm": running_mock,
    "yours": running_yours,
}


def description_of(url: str) -> dict[str, Any]:
    """The routes in OpenAPI's form; the mock LLM has no description of its own."""
    answer = requests.get(f"{url}/openapi.json", timeout=60)
    if answer.ok:
        return answer.json()
    (body,), parts = msgspec.json.schema_components([ChatRequest], ref_template="#/components/schemas/{name}")
    chat = {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {"200": {"description": "an answer"}},
    }
    paths = {"/v1/chat/completions": {"post": chat}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "m", "version": "1"},
        "paths": paths,
        "components": {"schemas": parts},
    }


class Player:
    """A session, or a chat, that must not notice what others send."""

    def __init__(self, url: str) -> None:
        self.url, self.name, self.id = url, "", 0
        self.is_chat = requests.get(f"{url}/v1/models", timeout=60).ok
        if not self.is_chat:
            created = self.post("/create", {})
            self.name, self.id = ("id", created["id"]) if isinstance(created, dict) else ("env_idx", created)
            self.post("/reset", {self.name: self.id, "data_idx": 3, "session_id": 3})

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return requests.post(self.url + path, json=body, timeout=60).json()

    def view(self) -> Any:
        if self.is_chat:
            return self.post("/v1/chat/completions", {**GOOD_CHAT, "temperature": 0})
        return requests.get(f"{self.url}/observation", params={self.name: self.id}, timeout=60).json()

    def close(self) -> bool:
        return self.is_chat or self.post("/close", {self.name: self.id})


def check(response: requests.Response) -> None:
    """AgentGym's contract has a 500 without a reason in three places; any other answer is JSON."""
    if response.status_code == 500:
        assert response.text == "Internal Server Error"
    else:
        assert response.status_code < 500 or "Retry-After" in response.headers
        response.json()


@contextmanager
def no_errors_logged() -> Iterator[None]:
    """uvicorn logs what the app raised, so a 500 of the contract is told from one of a fault."""
    found: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    loggers = [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
    assert found == []


def repeat(strategy: Any, send: Callable[[Any], None]) -> None:
    """Send EXAMPLES generated inputs."""

    def one(made: Any) -> None:
        send(made)

    options = {"database": None, "suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}
    try:
        settings(max_examples=EXAMPLES, **options)(given(strategy)(one))()  # type: ignore[arg-type]
    except Unsatisfiable:
        pass  # a route without input has no wrong one


def fuzz(operation: Any, url: str, victim: Player) -> None:
    """Send right, nearly right and wrong requests to one route, half of them for an open session."""

    def send(case: Any) -> None:
        for fields in (case.body, case.query):
            if isinstance(fields, dict) and victim.name in fields and len(str(fields)) % 2:
                fields[victim.name] = victim.id
        check(case.call(timeout=60))

    def post(raw: bytes) -> None:
        kind = {"Content-Type": "application/json"}
        check(requests.post(url + operation.path, raw, headers=kind, timeout=60))

    costly = operation.path in ("/gold", "/expert")  # a plan of the world's own, for any index
    for mode in (GenerationMode.NEGATIVE,) if costly else GenerationMode:
        repeat(operation.as_strategy(generation_mode=mode), send)
    if operation.method == "post":
        repeat(st.binary(), post)
        for raw in RAW:
            post(raw)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.java) if name == "sciworld" else name for name in SERVERS]
)
def test_every_route_answers_anything_within_bounds(name: str) -> None:
    with SERVERS[name]() as url, no_errors_logged():
        player, victim = Player(url), Player(url)
        before = player.view()
        schema = schemathesis.openapi.from_dict(description_of(url))
        schema.config.update(base_url=url)
        for operation in schema.get_all_operations():
            assert isinstance(operation, Ok)
            fuzz(operation.ok(), url, victim)
        assert player.view() == before
        assert player.close() is True
