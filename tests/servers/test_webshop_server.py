"""The bundled WebShop server over HTTP: AgentGym's contract, its extensions, and its command line."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.servers.session_store import UnknownId
from mcts_utils.servers.webshop.__main__ import main
from mcts_utils.servers.webshop.app import running_server
from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.sessions import Sessions
from mcts_utils.servers.webshop.shop import AGENTGYM, Shop, bundled_shop
from tests.helpers.http_client import HttpClient
from tests.helpers.small_shop import shop

ROOT = Path(__file__).resolve().parents[2]
OPENING = re.compile(r"WebShop \[SEP\] Instruction: \[SEP\] Find me .+ \[SEP\] Search")
BUY = ["search[floor lamp brass]", "click[b000000001]", "click[black]", "click[small]", "click[buy now]"]
UNKNOWN = 1  # never an id
START_SECONDS = 120.0


@pytest.fixture(scope="module")
def server() -> Iterator[HttpClient]:
    with running_server(shop=shop()) as url, HttpClient(url) as client:
        yield client


def post(client: HttpClient, path: str, **body: Any) -> Any:
    answer = client.post(path, json=body)
    assert answer.status_code == 200, (path, body, answer.text)
    return answer.json()


def get(client: HttpClient, path: str, **query: Any) -> Any:
    answer = client.get(path, params=query)
    assert answer.status_code == 200, (path, query, answer.text)
    return answer.json()


# --- the contract


def test_hello(server):
    assert get(server, "/") == "ok"


def test_create_answers_a_bare_number_and_needs_no_body(server):
    first, second = server.post("/create"), server.post("/create", json={})
    assert first.status_code == second.status_code == 200
    assert type(first.json()) is int and first.json() != second.json()
    assert {first.json(), second.json()} <= set(get(server, "/list_envs"))
    assert OPENING.fullmatch(get(server, "/observation", env_idx=first.json()))


def test_reset_by_index(server):
    env = server.post("/create").json()
    opening, nothing = post(server, "/reset", env_idx=env, session_id=0)
    assert nothing is None and OPENING.fullmatch(opening)
    assert post(server, "/reset", env_idx=env, session_id=1)[0] != opening
    assert post(server, "/reset", env_idx=env, session_id=-2)[0] == opening  # from the end, of two
    assert post(server, "/reset", env_idx=env, session_id=0)[0] == opening
    assert get(server, "/observation", env_idx=env) == opening


@pytest.mark.parametrize("body", [{}, {"session_id": None}])
def test_reset_without_an_index(server, body):
    env = server.post("/create").json()
    assert OPENING.fullmatch(post(server, "/reset", env_idx=env, **body)[0])


def test_step_answers(server):
    env = server.post("/create").json()
    opening = post(server, "/reset", env_idx=env, session_id=0)[0]
    nothing = {"state": opening, "reward": 0.0, "done": False, "info": None}
    assert post(server, "/step", env_idx=env, action="hello") == nothing
    found = post(server, "/step", env_idx=env, action="search[lamp]")
    assert set(found) == {"state", "reward", "done", "info"}
    assert found["state"].startswith("Instruction: [SEP] ") and not found["done"]
    for action in BUY[:-1]:
        assert post(server, "/step", env_idx=env, action=action)["reward"] == 0
    bought = post(server, "/step", env_idx=env, action=BUY[-1])
    assert (bought["reward"], bought["done"]) == (1.0, True)
    assert get(server, "/observation", env_idx=env) == bought["state"]
    again = post(server, "/step", env_idx=env, action=BUY[-1])
    assert again == {"state": bought["state"], "reward": 0.0, "done": False, "info": None}


def test_rewards_are_floats(server):
    env = server.post("/create").json()
    assert '"reward":0.0' in server.post("/step", json={"env_idx": env, "action": "x"}).text


def test_looking(server):
    env = server.post("/create").json()
    opening = post(server, "/reset", env_idx=env, session_id=0)[0]
    text = opening.split(" [SEP] ")[2]
    assert get(server, "/available_actions", env_idx=env) == {
        "has_search_bar": True,
        "clickables": ["search"],
    }
    assert get(server, "/instruction_text", env_idx=env) == f"Instruction: {text}"
    assert get(server, "/state", env_idx=env) == {k: k for k in ("url", "html", "instruction_text")}
    post(server, "/step", env_idx=env, action="search[zzz]")
    assert get(server, "/available_actions", env_idx=env) == {
        "has_search_bar": False,
        "clickables": ["back to search", "next >"],
    }
    assert get(server, "/instruction_text", env_idx=env) == f"Instruction:{text}"


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "/reset", {"env_idx": UNKNOWN, "session_id": 0}),
        ("POST", "/step", {"env_idx": UNKNOWN, "action": "search[x]"}),
        ("POST", "/fork", {"env_idx": UNKNOWN}),
        ("POST", "/replay", {"env_idx": UNKNOWN, "session_id": 0, "actions": []}),
        *(("GET", path, {"env_idx": UNKNOWN}) for path in ("/observation", "/available_actions")),
        *(("GET", path, {"env_idx": UNKNOWN}) for path in ("/instruction_text", "/state")),
    ],
)
def test_an_unknown_session_is_a_500_without_a_word(server, method, path, content):
    kind = "json" if method == "POST" else "params"
    answer = server.request(method, path, **{kind: content})
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("index", [2, -3, 10_000_000])
def test_an_index_out_of_range_is_a_500_and_changes_nothing(server, index):
    env = server.post("/create").json()
    opening = post(server, "/reset", env_idx=env, session_id=0)[0]
    answer = server.post("/reset", json={"env_idx": env, "session_id": index})
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")
    assert get(server, "/observation", env_idx=env) == opening


def test_a_search_that_breaks_the_public_engine_is_a_500(server):
    env = server.post("/create").json()
    assert server.post("/step", json={"env_idx": env, "action": "search[<c>]"}).status_code == 500


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/reset", {"id": 1, "data_idx": 0}, ["body", "env_idx"]),
        ("/step", {"env_idx": 1}, ["body", "action"]),
        ("/step", {"action": "x"}, ["body", "env_idx"]),
    ],
)
def test_a_missing_field_is_a_422(server, path, body, where):
    answer = server.post(path, json=body)
    assert answer.status_code == 422
    assert [(d["type"], d["loc"]) for d in answer.json()["detail"]] == [("missing", where)]


# --- ours alone


def test_about_and_split(server):
    about = get(server, "/about")
    assert re.fullmatch(r"agent-r-webshop-[0-9a-f]{8}", about.pop("kind"))
    assert about == {"env": "webshop", "goals": 2, "extensions": ["fork", "replay"]}
    split = get(server, "/split")
    assert sorted(split["train"] + split["test"]) == [0, 1]


def test_a_server_of_agentgyms_goals_has_no_split_of_its_own():
    small = shop()
    official = Shop(small.products, small.goals, AGENTGYM)
    with running_server(shop=official) as url, HttpClient(url) as client:
        assert get(client, "/about")["kind"] == "agentgym"
        assert client.get("/split").status_code == 404


def test_kind_names_the_goals():
    small = shop()
    assert Shop(small.products, small.goals).kind == small.kind
    assert Shop(small.products, small.goals[::-1]).kind != small.kind


def test_close(server):
    env = server.post("/create").json()
    assert post(server, "/close", env_idx=env) is True
    assert post(server, "/close", env_idx=env) is False
    assert env not in get(server, "/list_envs")


def test_fork_is_the_same_state_and_its_own_life(server):
    env = server.post("/create").json()
    post(server, "/reset", env_idx=env, session_id=0)
    for action in BUY[:3]:
        post(server, "/step", env_idx=env, action=action)
    answer = post(server, "/fork", env_idx=env)
    assert set(answer) == {"env_idx"} and answer["env_idx"] != env
    fork = answer["env_idx"]
    assert get(server, "/observation", env_idx=fork) == get(server, "/observation", env_idx=env)
    post(server, "/step", env_idx=fork, action="click[small]")
    assert post(server, "/step", env_idx=fork, action="click[buy now]")["reward"] == 1.0
    post(server, "/close", env_idx=fork)
    assert post(server, "/step", env_idx=env, action="click[buy now]")["reward"] == pytest.approx(4 / 5)


def test_replay_answers_as_reset_and_step_do(server):
    env, other = server.post("/create").json(), server.post("/create").json()
    actions = ["search[floor lamp brass]", "nonsense", *BUY[1:]]
    answer = post(server, "/replay", env_idx=env, session_id=0, actions=[*actions, "search[x]"])
    assert answer["reset"] == post(server, "/reset", env_idx=other, session_id=0)
    assert answer["steps"] == [post(server, "/step", env_idx=other, action=action) for action in actions]
    assert answer["steps"][-1]["done"] and len(answer["steps"]) == len(actions)  # stops at the end
    assert post(server, "/replay", env_idx=env, session_id=1, actions=[])["steps"] == []
    out = server.post("/replay", json={"env_idx": env, "session_id": 99, "actions": []})
    assert out.status_code == 500


def test_tasks_are_the_same_whenever_they_are_asked_for():
    def texts(client: HttpClient, envs: int) -> list[str]:
        for _ in range(envs):
            env = client.post("/create").json()
        return [post(client, "/reset", env_idx=env, session_id=index)[0] for index in range(0, 2000, 50)]

    seen = []
    for envs in (1, 5):
        with running_server() as url, HttpClient(url) as client:
            seen.append(texts(client, envs))
    assert seen[0] == seen[1] and len(set(seen[0])) == 40


def test_interleaved_sessions_do_not_mix():
    """Random walks in many sessions at once answer what each walk answers alone."""
    small = bundled_shop()
    index, rng = list(range(12)), random.Random(3)
    walks = [random_walk(small, number, random.Random(number)) for number in index]

    with running_server(shop=small) as url, HttpClient(url) as client:
        envs = [client.post("/create").json() for _ in index]

        def play(number: int) -> list[str]:
            with HttpClient(url) as own:
                first = post(own, "/reset", env_idx=envs[number], session_id=number)[0]
                return [
                    first,
                    *(post(own, "/step", env_idx=envs[number], action=a)["state"] for a in walks[number]),
                ]

        order = rng.sample(index, len(index))
        with ThreadPoolExecutor(6) as pool:
            played = dict(zip(order, pool.map(play, order), strict=True))
    for number in index:
        alone = ShopSession(small, small.goals[number])
        assert played[number] == [alone.page().text, *(alone.step(action)[0] for action in walks[number])]


def random_walk(small: Shop, number: int, rng: random.Random) -> list[str]:
    """Actions that mostly do something."""
    player = ShopSession(small, small.goals[number])
    actions = [f"search[{player.goal.content}]"]
    player.step(actions[0])
    for _ in range(12):
        clicks = list(player.page().clicks)
        actions.append(f"click[{rng.choice(clicks)}]" if clicks else "search[lamp]")
        player.step(actions[-1])
    return actions


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_idle_sessions_are_closed():
    clock = Clock()
    sessions = Sessions(shop(), 100.0, clock)
    used, old = sessions.create(), sessions.create()  # the older one stays in use
    clock.now = 60.0
    sessions.step(used, "search[lamp]")
    clock.now = 101.0
    assert sessions.ids() == [used]
    with pytest.raises(UnknownId):
        sessions.get(old)
    clock.now = 160.0
    assert sessions.ids() == [used]
    clock.now = 260.1
    assert sessions.ids() == []


# --- the command line


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "mcts_utils.servers.webshop", *args]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line on stderr of a command that exits with 2."""
    assert main(args) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1, (out, err)
    return err


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_command_says_where_and_ends_clean(how):
    with subprocess.Popen(
        command("--port", "0"), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"WebShop server on (http://127\.0\.0\.1:\d+)\n", line)
            assert found, line
            assert HttpClient(found[1]).get("/about").json()["goals"] >= 1500
            process.send_signal(how)
            assert process.wait(START_SECONDS) in (0, -how)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()


def test_command_names_what_is_wrong(tmp_path, capsys):
    assert "--idle_seconds must be between 0.001 and 1000000000: 0" in refused(
        capsys, "--port", "0", "--idle_seconds", "0"
    )
    assert "--products must be between 0 and 100000000: -1" in refused(
        capsys, "--port", "0", "--products", "-1"
    )
    nowhere = tmp_path / "nowhere"
    assert (
        refused(capsys, "--port", "0", "--data_dir", str(nowhere))
        == f"--data_dir: {nowhere}: no such folder\n"
    )
    (tmp_path / "items_ins_v2.json").write_text(json.dumps([]))
    assert f"{tmp_path}/items_ins_v2.json: not a JSON object" in refused(
        capsys, "--port", "0", "--data_dir", str(tmp_path)
    )


def test_command_names_a_port_in_use(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: cannot listen" in refused(capsys, "--port", str(port))
