"""What the bundled servers refuse, whom they answer, and when they end; the same for all of them."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import requests

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment
from mcts_utils.pipeline.processes import start
from mcts_utils.servers import app_server
from mcts_utils.servers.app_server import running
from mcts_utils.servers.mock_llm import http_server
from mcts_utils.servers.mock_llm.endpoint import Behaviour, running_chat
from mcts_utils.servers.sockets import BODY_BYTES
from mcts_utils.servers.textcraft.__main__ import main as textcraft
from mcts_utils.servers.textcraft.app import create_app
from mcts_utils.types import InputError

CHAT = {"messages": [{"role": "user", "content": "x"}]}
TOKEN = "a-token-of-ours"


@contextmanager
def running_mock() -> Iterator[str]:
    with running_chat(Behaviour(slots=2)) as server:
        yield f"http://127.0.0.1:{server.port}"


@contextmanager
def running_textcraft(**options: Any) -> Iterator[str]:
    with running(create_app(**options)) as url:
        yield url


SERVERS = [(running_textcraft, "/create", {}), (running_mock, "/v1/chat/completions", CHAT)]


@pytest.fixture(params=SERVERS, ids=["app", "mock_llm"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[str, str, Any]]:
    """Base URL, path of a POST, and a body that it takes."""
    make, path, body = request.param
    with make() as url:
        yield url, path, body


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").partition(":")
    return host, int(port)


def chunks() -> Iterator[bytes]:
    for _ in range(2 + BODY_BYTES // 2**16):
        yield b" " * 2**16


@pytest.mark.parametrize(
    ("headers", "content", "statuses"),
    [
        ({"Host": "evil.example"}, None, (400, 403)),
        ({"Host": "evil.example:80"}, None, (400, 403)),
        ({"Host": "127.0.0.1.evil.example"}, None, (400, 403)),
        ({"Host": ""}, None, (400, 403)),
        ({"Host": "localhost"}, None, (200,)),
        ({"Host": "LOCALHOST:1"}, None, (200,)),
        ({"Host": "[::1]:26001"}, None, (200,)),
        ({"Origin": "http://evil.example"}, None, (403,)),
        ({"Origin": "null"}, None, (403,)),
        ({"Origin": "http://127.0.0.1:8080"}, None, (200,)),
        ({"X": "x" * 2**20}, None, (400, 431)),
        ({"Content-Length": str(10**30)}, b"", (400, 413)),
        ({"Content-Length": "-1"}, b"", (400,)),
        ({"Content-Length": "1_0"}, b"", (400,)),
        ({}, b" " * (BODY_BYTES + 1), (413,)),
    ],
)
def test_what_is_too_large_or_from_elsewhere_is_refused(
    server: tuple[str, str, Any], headers: dict[str, str], content: bytes | None, statuses: tuple[int, ...]
) -> None:
    url, path, body = server
    connection = HTTPConnection(*address(url), timeout=60)
    raw = json.dumps(body).encode() if content is None else content
    connection.putrequest("POST", path, skip_host="Host" in headers)
    sent = {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}
    for name, value in sent.items():
        connection.putheader(name, value)
    try:
        connection.endheaders(raw)
    except ConnectionError:
        pass  # it refuses before all has arrived
    assert connection.getresponse().status in statuses
    assert requests.post(url + path, json=body, timeout=60).status_code == 200, "others go on"


def test_a_chunked_body_has_the_same_limit(server: tuple[str, str, Any]) -> None:
    url, path, _ = server
    try:
        answer = requests.post(
            url + path, data=chunks(), headers={"Content-Type": "application/json"}, timeout=60
        )
    except requests.ConnectionError:
        return  # closed before all had arrived
    assert answer.status_code in (400, 413)


def test_slow_connections_are_closed_and_hinder_nobody(
    server: tuple[str, str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, path, body = server

    def allow(seconds: float) -> None:
        for module in (app_server, http_server):
            monkeypatch.setattr(module, "SLOW_SECONDS", seconds)

    allow(0.5)
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n".encode()
    with ExitStack() as stack:
        begun = [stack.enter_context(socket.create_connection(address(url), timeout=60)) for _ in range(200)]
        for number, connection in enumerate(begun):
            connection.sendall((b"", head, head + b"\r\n{")[number % 3])
        with requests.Session() as good:
            good.get(f"{url}/health", timeout=60)  # all connections have been accepted by then
            allow(60)
            assert {good.post(url + path, json=body, timeout=60).status_code for _ in range(10)} == {200}
        for connection in begun:
            assert ended(connection)


def ended(connection: socket.socket) -> bool:
    """Wait until the server closes the connection; return False if it answers first."""
    try:
        return connection.recv(1) == b""
    except ConnectionError:
        return True


@pytest.mark.slow
def test_a_thousand_sessions_are_open_at_once() -> None:
    with running_textcraft() as url:

        def play(number: int) -> tuple[int, str]:
            connection = HTTPConnection(*address(url), timeout=60)

            def post(path: str, body: Any) -> Any:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
                return json.loads(connection.getresponse().read())

            found = post("/create", {})["id"]
            return found, post("/step", {"id": found, "action": f"get {number} bamboo"})["observation"]

        with ThreadPoolExecutor(2) as threads:
            played = list(threads.map(play, range(1000)))
        assert [text for _, text in played] == [f"Got {number} bamboo" for number in range(1000)]
        assert len({number for number, _ in played}) == 1000
        assert min(number for number, _ in played) >= 2**52, "nobody guesses an id"
        assert "agent_r_sessions 1000\n" in requests.get(f"{url}/metrics", timeout=60).text


def test_a_full_server_says_so_until_a_session_is_closed() -> None:
    with running_textcraft(max_sessions=1) as url:

        def post(path: str, **body: Any) -> requests.Response:
            return requests.post(url + path, json=body, timeout=60)

        number = post("/create").json()["id"]
        for path in ("/create", "/fork"):
            refused = post(path, id=number)
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "5")
            assert refused.json() == {"detail": "1 sessions are open, and no more are allowed."}
        post("/close", id=number)
        assert post("/create").status_code == 200


def test_numbers_of_a_server_can_be_read(server: tuple[str, str, Any]) -> None:
    url, path, body = server
    assert requests.get(f"{url}/health", timeout=60).json() == {"status": "ok"}
    requests.post(url + path, json=body, timeout=60)
    answer = requests.get(f"{url}/metrics", timeout=60)
    assert answer.headers["Content-Type"].startswith("text/plain")
    found = dict(line.rsplit(" ", 1) for line in answer.text.splitlines())
    assert found.get('agent_r_answers_total{status="200"}') == "2" or found.get("mock_llm_answers") == "1"
    assert all(float(value) >= 0 for value in found.values())


def test_bad_chats_do_not_keep_the_slots() -> None:
    with running_mock() as url:
        wrong: dict[str, Any]
        for wrong in ({"n": "abc"}, {"n": 10**12}, {"max_tokens": "x"}, {"temperature": []}, {"seed": 0.5}):
            answer = requests.post(f"{url}/v1/chat/completions", json={**CHAT, **wrong}, timeout=60)
            assert answer.status_code == 400
            assert f"$.{next(iter(wrong))}" in answer.json()["error"]["message"]
        assert requests.post(f"{url}/v1/chat/completions", json=CHAT, timeout=60).status_code == 200


def test_a_token_is_asked_for_and_may_stand_in_the_url() -> None:
    with running(create_app(), token=TOKEN) as url:

        def status(path: str, **headers: str) -> int:
            return requests.get(url + path, headers=headers, timeout=60).status_code

        assert (status("/health"), status("/"), status("/metrics")) == (200, 401, 401)
        assert status("/", Authorization=f"Bearer {TOKEN}") == 200
        for wrong in (f"Bearer {TOKEN}x", "Bearer ", "Basic !", f"Basic {TOKEN}", "Bearer \xff"):
            assert status("/about", Authorization=wrong) == 401
        env = make_environment("textcraft", url.replace("//", f"//agent:{TOKEN}@"))
        assert env.reset(0).opening
        env.close()
        with pytest.raises(InputError, match="HTTP 401") as caught:
            make_environment("textcraft", url.replace("//", "//agent:wrong-token@"))
        assert "wrong-token" not in str(caught.value)
    settings = Settings(env_server_base=f"http://agent:{TOKEN}@host:1")
    assert settings.public()["env_server_base"] == "http://host:1"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ["--host", "0.0.0.0"],
            "--host 0.0.0.0: other machines reach it, so it needs --token or SERVER_TOKEN",
        ),
        (["--token", "short"], "--token must be 8 or more letters, digits, '.', '_', '~' or '-'"),
        (["--max_sessions", "0"], "--max_sessions must be between 1 and 1000000: 0"),
        (["--idle_seconds", "nan"], "--idle_seconds must be between 0.001 and 1000000000: nan"),
        (["--port", "70000"], "--port must be between 0 and 65535: 70000"),
    ],
)
def test_a_bad_flag_is_one_line(flags: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert textcraft(["--port", "0", *flags]) == 2
    assert capsys.readouterr().err == said + "\n"


@pytest.mark.parametrize("module", ["textcraft", "mock_llm"])
def test_a_server_ends_with_the_process_that_it_was_started_for(module: str) -> None:
    parent = subprocess.Popen(["sleep", "600"])
    command = [sys.executable, "-m", f"mcts_utils.servers.{module}", "--port", "0"]
    env = {**os.environ, "END_WITH": str(parent.pid)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=env) as process:
        assert process.stdout is not None
        assert b"http://" in process.stdout.readline()
        assert process.poll() is None
        parent.kill()
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
            parent.wait()


def test_a_server_whose_parent_has_ended_before_ends_at_once() -> None:
    parent = subprocess.Popen(["true"])
    parent.wait()
    command = [
        sys.executable,
        "-m",
        "mcts_utils.servers.textcraft",
        "--port",
        "0",
        "--end_with",
        str(parent.pid),
    ]
    assert subprocess.run(command, capture_output=True, timeout=300).returncode == 0


def test_the_pipeline_names_itself_to_its_servers(tmp_path: Path) -> None:
    async def started() -> str:
        async with AsyncExitStack() as servers:
            words = ["sh", "-c", "echo it is on http://$END_WITH; exec sleep 600"]
            return (await start(words, str(tmp_path / "log"), 60, servers))[0]

    assert asyncio.run(started()) == f"http://{os.getpid()}"
