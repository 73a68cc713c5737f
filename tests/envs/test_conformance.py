"""The bundled servers speak AgentGym's protocol, and the check that says so notices what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import JSONResponse

from mcts_utils.envs.specs import names
from mcts_utils.servers import app_server
from mcts_utils.servers.app_server import running
from mcts_utils.servers.textcraft.app import create_app
from mcts_utils.servers.textcraft.app import running_server as running_textcraft
from mcts_utils.servers.webshop.app import running_server as running_webshop
from mcts_utils.servers.yours.app import create_app as create_own_app
from mcts_utils.servers.yours.world import World
from tests import conformance
from tests.conformance_requests import REQUESTS
from tests.envs.test_public_suite import RECORDED
from tests.helpers.sciworld_process import running_sciworld

RUNNING: dict[str, Any] = {
    "textcraft": running_textcraft,
    "sciworld": running_sciworld,
    "webshop": running_webshop,
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.java) if name == "sciworld" else name for name in RUNNING],
)
def tape(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    """An environment, and what its bundled server answered to every request."""
    env, lines = request.param, list[dict[str, Any]]()
    with RUNNING[env]() as base_url, conformance.connected(base_url) as client:
        ask = conformance.live(client)

        def exchange(method: str, path: str, content: Any) -> tuple[int, Any]:
            status, answer = ask(method, path, content)
            sent = {"params": content, "body": None} if method == "GET" else {"params": None, "body": content}
            lines.append({"method": method, "path": path, **sent, "status": status, "response": answer})
            return status, answer

        outcome = conformance.play(REQUESTS[env], exchange)
    assert outcome.failed == []
    assert outcome.left_out == []
    assert outcome.checked == len(REQUESTS[env]) > 20
    return env, lines


def test_servers_keep_the_fork_protocol_and_a_shared_copy_is_noticed() -> None:
    worlds = Path(__file__).parents[1] / "helpers" / "broken_worlds.py"
    copies = [running(create_own_app(World(f"{worlds}:{name}"))) for name in ("Counter", "CopySharesState")]
    failed = []
    for server in (running_textcraft(), *copies):
        with server as base_url, conformance.connected(base_url) as client:
            failed.append(conformance.play(REQUESTS["fork-protocol"], conformance.live(client)).failed)
    assert failed[:2] == [[], []]
    assert any("the same step in it" in line for line in failed[2])


def wrong(answer: Any) -> Iterator[Any]:
    """The answer with one thing wrong at a time."""
    if isinstance(answer, dict):
        for name, value in answer.items():
            rest = {key: other for key, other in answer.items() if key != name}
            yield rest
            yield {**rest, name: "wrong" if value is None else None}
        yield {**answer, "more": 1}
    elif isinstance(answer, list) and all(isinstance(value, int) for value in answer):
        yield "wrong"
    elif isinstance(answer, list):
        yield answer[:-1]
        yield [None, *answer[1:]]
    else:
        yield None
        yield {"answer": answer}


def test_every_wrong_field_and_status_is_noticed(tape: tuple[str, list[dict[str, Any]]]) -> None:
    env, lines = tape
    missed = []
    for number, (request, line) in enumerate(zip(REQUESTS[env], lines, strict=True)):
        if isinstance(request.status, tuple) and line["status"] != request.status[0]:
            continue  # a route that public servers have not
        changed = [{**line, "response": answer} for answer in wrong(line["response"])]
        changed.append({**line, "status": line["status"] + 1})
        for other in changed:
            recording = [*lines[:number], other, *lines[number + 1 :]]
            if not conformance.play(REQUESTS[env], conformance.recorded(recording)).failed:
                missed.append((request.label, other["status"], str(other["response"])[:80]))
    assert missed == []


def test_a_recording_is_checked_in_the_same_way(
    tape: tuple[str, list[dict[str, Any]]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env, lines = tape
    path = tmp_path / "answers.jsonl"
    texts = [
        {**line, "response": {"__text__": line["response"]}} if line["status"] == 500 else line
        for line in lines
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in texts), encoding="utf-8")
    assert conformance.main([env, "--recorded", str(path)]) == 0
    assert capsys.readouterr().out == f"{env}: {len(lines)} requests checked, 0 differences\n"
    path.write_text("".join(json.dumps(line) + "\n" for line in texts[:3]), encoding="utf-8")
    assert conformance.main([env, "--recorded", str(path)]) == 0
    assert f"{env}: 3 requests checked, 0 differences, not there: " in capsys.readouterr().out
    path.write_text("".join(json.dumps({**line, "status": 418}) + "\n" for line in texts), encoding="utf-8")
    assert conformance.main([env, "--recorded", str(path)]) == 1
    assert "GET / (hello): status 418, expected 200" in capsys.readouterr().out


def test_a_server_with_one_wrong_field_fails(capsys: pytest.CaptureFixture[str]) -> None:
    app = create_app()

    @app.middleware("http")
    async def rename(request: Any, call_next: Any) -> Any:
        if request.url.path != "/detail":
            return await call_next(request)
        return JSONResponse({"observation": "Inventory: x", "finished": False, "reward": 0, "deleted": False})

    with app_server.running(app) as base_url:
        assert conformance.main(["textcraft", base_url]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out == [
        "GET /detail (detail): answer lacks ['done']",
        "GET /detail (detail): answer has ['finished'] too",
        f"textcraft: {len(REQUESTS['textcraft'])} requests checked, 2 differences",
    ]


def test_another_environments_server_fails() -> None:
    with running_textcraft() as base_url:
        assert conformance.main(["babyai", base_url]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["textcraft"],
        ["textcraft", "http://127.0.0.1:9"],
        ["textcraft", "http://127.0.0.1:9", "--recorded", "x"],
        ["textcraft", "--recorded", "no_such_file.jsonl"],
        ["chess", "http://127.0.0.1:9"],
    ],
)
def test_wrong_use_is_told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        conformance.main(arguments)
    assert caught.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_every_environment_with_a_contract_has_a_list() -> None:
    """Of the bundled servers' kinds a long list, which any server can be tried with; of the others recorded answers."""
    assert sorted({*REQUESTS, *RECORDED} - {"fork-protocol"}) == list(names())
