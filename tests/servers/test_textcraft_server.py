"""The bundled TextCraft server: AgentGym's contract request by request, and its extensions.

The conformance part plays against any base URL, a public AgentGym TextCraft server as well:

    CONFORMANCE_URL=http://127.0.0.1:26001 python -m pytest tests/servers/test_textcraft_server.py -k conformance
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest

from mcts_utils.envs import make_environment
from mcts_utils.servers.session_store import UnknownId
from mcts_utils.servers.textcraft.planner import Planner
from mcts_utils.servers.textcraft.sessions import Sessions
from mcts_utils.servers.textcraft.world import Session, load_world
from tests.helpers.http_client import HttpClient

OPENING = re.compile(r"Crafting commands:\n(craft \d+ .+ using \d+ .+\n)+\nGoal: craft .+\.")
ID = "<id>"  # stands for the session's id in a request
FEW = 30  # indices looked at to find a goal that the check can use
MISSING_RECIPE = (
    "Could not find a valid recipe for "
    "ItemTagWithCount(item_tag=ItemTag(tag={tag}, item_id={item}), count={count})"
)


@dataclass(frozen=True)
class Case:
    """One request and what must come back: an exact answer, or a function that judges it."""

    label: str
    method: str
    path: str
    content: Any  # JSON body or query; bytes are sent as they are; None is no body
    status: int
    expected: Any


def said(observation: str) -> dict[str, Any]:
    """The answer to a step that ends nothing."""
    return {"observation": observation, "reward": 0, "done": False}


def steps(*pairs: tuple[str, str]) -> list[Case]:
    return [Case(a, "POST", "/step", {"id": ID, "action": a}, 200, said(o)) for a, o in pairs]


def is_opening(answer: Any) -> bool:
    return (
        set(answer) == {"id", "observation", "done", "reward"}
        and OPENING.fullmatch(answer["observation"]) is not None
        and (answer["done"], answer["reward"]) == (False, 0)
    )


def is_422(kind: str, *where: str | int) -> Callable[[Any], bool]:
    """Judges FastAPI's complaint about one field."""
    return lambda answer: [(d["type"], d["loc"]) for d in answer["detail"]] == [(kind, list(where))]


def invalid(number: int) -> dict[str, str]:
    return {"error": f"The id {number} is not valid."}


CARRYING = "Inventory: [cornflower] (2) [lily of the valley] (0) "
CASES: list[Case] = [
    Case("hello", "GET", "/", None, 200, "This is environment TextCraft."),
    Case("create: body required", "POST", "/create", None, 422, is_422("missing", "body")),
    Case("create: foreign fields", "POST", "/create", {"minecraft_dir": "x", "goal": None}, 200, is_opening),
    Case(
        "create: goal ignored",
        "POST",
        "/create",
        {"commands": "x", "goal": "minecraft:stick"},
        200,
        is_opening,
    ),
    Case("reset: default index", "POST", "/reset", {"id": ID}, 200, is_opening),
    Case("reset: negative index", "POST", "/reset", {"id": ID, "data_idx": -1}, 200, is_opening),
    Case("reset: large index", "POST", "/reset", {"id": ID, "data_idx": 10**6}, 200, is_opening),
    Case(
        "reset: null index",
        "POST",
        "/reset",
        {"id": ID, "data_idx": None},
        200,
        {"error": "unsupported operand type(s) for %: 'NoneType' and 'int'"},
    ),
    *steps(
        ("inventory", "Inventory: You are not carrying anything."),
        ("get 2 cornflower", "Got 2 cornflower"),
        ("get 1 blue dye", "Could not find blue dye"),
        ("get 1 unicorn", "Could not find unicorn"),
        ("get 1 planks", "Could not find planks"),
        ("get cornflower", "Could not execute get cornflower"),
        ("get 1  cornflower", "Could not find  cornflower"),
        ("get 1 cornflower.", "Could not find cornflower."),
        ("get 0 lily of the valley", "Got 0 lily of the valley"),
        ("inventory", CARRYING),
        ("inventory now please", CARRYING),
        ("dance", "Could not execute dance"),
        ("", "Could not execute "),
        ("Get 1 cornflower", "Could not execute Get 1 cornflower"),
        (" get 1 cornflower", "Could not execute  get 1 cornflower"),
    ),
    Case("observation", "GET", "/observation", {"id": ID}, 200, "Could not execute  get 1 cornflower"),
    Case(
        "detail",
        "GET",
        "/detail",
        {"id": ID},
        200,
        {"observation": "Could not execute  get 1 cornflower", "done": False, "reward": 0, "deleted": False},
    ),
    Case("commands: broken", "GET", "/commands", {"id": ID}, 500, "Internal Server Error"),
    Case("goal: broken", "GET", "/goal", {"id": ID}, 500, "Internal Server Error"),
    *steps(
        (
            "craft 1 blue dye using 1 lapis lazuli",
            "Could not find enough items to craft minecraft:blue_dye",
        ),
        (
            "craft 1 blue dye using 2 cornflower",
            MISSING_RECIPE.format(tag=None, item="'minecraft:blue_dye'", count=1),
        ),
        (
            "craft 1 unicorn using 1 cornflower",
            MISSING_RECIPE.format(tag=None, item="'minecraft:unicorn'", count=1),
        ),
        (
            "craft 4 planks using 1 cornflower",
            MISSING_RECIPE.format(tag="'minecraft:planks'", item=None, count=4),
        ),
        (
            "craft 1 blue dye using 1 cornflower, 1 cornflower",
            MISSING_RECIPE.format(tag=None, item="'minecraft:blue_dye'", count=1),
        ),
        ("craft 1 blue dye using 3 cornflower", "Could not find enough items to craft minecraft:blue_dye"),
        ("craft 1 unicorn using 1 horn", "Could not find enough items to craft minecraft:unicorn"),
        ("craft 4 stick using 2 planks", "Could not find enough items to craft minecraft:stick"),
        ("craft 1 blue dye using cornflower", "Wrong item format: cornflower"),
        ("craft 1 blue dye", "Could not execute craft 1 blue dye"),
        ("inventory", CARRYING),
        ("craft 5 blue dye using 1 cornflower", "Crafted 1 minecraft:blue_dye"),
        ("craft blue dye using 1 cornflower", "Crafted 1 minecraft:blue_dye"),
        ("inventory", "Inventory: [lily of the valley] (0) [blue dye] (2) "),
    ),
    Case("step: unknown id", "POST", "/step", {"id": 999999, "action": "inventory"}, 200, invalid(999999)),
    Case("reset: unknown id", "POST", "/reset", {"id": 999999, "data_idx": 0}, 200, invalid(999999)),
    Case("observation: unknown id", "GET", "/observation", {"id": 999999}, 200, invalid(999999)),
    Case("detail: unknown id", "GET", "/detail", {"id": 999999}, 200, invalid(999999)),
    Case("step: no action", "POST", "/step", {"id": ID}, 422, is_422("missing", "body", "action")),
    Case("step: no id", "POST", "/step", {"action": "inventory"}, 422, is_422("missing", "body", "id")),
    Case(
        "step: WebShop's id field",
        "POST",
        "/step",
        {"env_idx": 0, "action": "x"},
        422,
        is_422("missing", "body", "id"),
    ),
    Case(
        "step: word as id",
        "POST",
        "/step",
        {"id": "abc", "action": "x"},
        422,
        is_422("int_parsing", "body", "id"),
    ),
    Case(
        "step: half an id",
        "POST",
        "/step",
        {"id": 0.5, "action": "x"},
        422,
        is_422("int_from_float", "body", "id"),
    ),
    Case(
        "step: number as action",
        "POST",
        "/step",
        {"id": ID, "action": 1},
        422,
        is_422("string_type", "body", "action"),
    ),
    Case("step: broken JSON", "POST", "/step", b"{bad", 422, is_422("json_invalid", "body", 1)),
    Case("observation: no id", "GET", "/observation", None, 422, is_422("missing", "query", "id")),
    Case("no such route", "GET", "/nope", None, 404, {"detail": "Not Found"}),
    Case("wrong method", "GET", "/step", None, 405, {"detail": "Method Not Allowed"}),
    Case("close", "POST", "/close", {"id": ID}, 200, True),
    Case("close twice", "POST", "/close", {"id": ID}, 200, False),
    Case("close: unknown id", "POST", "/close", {"id": 999999}, 200, False),
]


def play(client: HttpClient, case: Case, number: int) -> str | None:
    """What is wrong with the answer, or None."""
    content = case.content
    if isinstance(content, dict) and content.get("id") == ID:
        content = {**content, "id": number}
    request: dict[str, Any] = {"headers": {"content-type": "application/json"}}
    if isinstance(content, bytes):
        request["data"] = content
    elif content is not None:
        request["params" if case.method == "GET" else "json"] = content
    response = client.request(case.method, case.path, **request)
    answer = response.text if response.status_code == 500 else response.json()
    right = case.expected(answer) if callable(case.expected) else answer == case.expected
    if right and response.status_code == case.status:
        return None
    return f"{case.label}: {response.status_code} {answer!r}, expected {case.status} {case.expected!r}"


@pytest.fixture(scope="module")
def conformance_url(textcraft_url: str) -> str:
    return os.environ.get("CONFORMANCE_URL") or textcraft_url


@pytest.fixture
def session(conformance_url: str) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """post(path, body) in a new session."""
    with HttpClient(conformance_url) as client:
        number = client.post("/create", json={}).json()["id"]
        yield lambda path, body: client.post(path, json={"id": number, **body}).json()
        client.post("/close", json={"id": number})


def solve(post: Callable[[str, dict[str, Any]], Any]) -> dict[str, Any]:
    """Fetch and craft in the first goal that one listed command makes from fetched items; the last answer."""
    for index in range(FEW):
        opening = post("/reset", {"data_idx": index})["observation"]
        goal = opening.rsplit("Goal: craft ", 1)[1].removesuffix(".")
        for made, used in re.findall(r"^(craft \d+ .+) using (.+)$", opening, re.MULTILINE):
            if made.split(" ", 2)[2] != goal:
                continue
            got = [post("/step", {"action": f"get {part}"})["observation"] for part in used.split(", ")]
            if all(o.startswith("Got ") for o in got):
                return post("/step", {"action": f"{made} using {used}"})
    raise AssertionError(f"none of the first {FEW} goals is made from fetched items")


def test_conformance_of_every_request(conformance_url: str) -> None:
    # A public server breaks the connection after a 500.
    with HttpClient(conformance_url, keep_alive=False) as client:
        number = client.post("/create", json={}).json()["id"]
        wrong = [problem for case in CASES if (problem := play(client, case, number))]
        closed = client.post("/step", json={"id": number, "action": "inventory"}).json()
    assert wrong == []
    assert closed == invalid(number)


def test_conformance_of_the_reward_and_after_it(session: Callable[[str, dict[str, Any]], Any]) -> None:
    last = solve(session)
    assert re.fullmatch(r"Crafted \d+ minecraft:\w+", last.pop("observation"))
    assert last == {"reward": 1, "done": True}
    after = session("/step", {"action": "inventory"})
    assert (after["reward"], after["done"]) == (0, False)
    assert re.fullmatch(r"Inventory: (\[.+\] \(\d+\) )+", after["observation"])


def test_conformance_of_an_empty_inventory_after_reset(session: Callable[[str, dict[str, Any]], Any]) -> None:
    session("/step", {"action": "get 1 cornflower"})
    session("/reset", {"data_idx": 1})
    assert session("/step", {"action": "inventory"}) == said("Inventory: You are not carrying anything.")


def test_conformance_of_our_client(conformance_url: str) -> None:
    env = make_environment("textcraft", conformance_url)
    tasks: dict[str, Any] = {}

    def post(path: str, body: dict[str, Any]) -> Any:
        if path == "/reset":
            tasks["last"] = env.reset(body["data_idx"])
            return {"observation": tasks["last"].opening}
        result = env.step(body["action"])
        return {"observation": result.observation, "reward": result.reward, "done": result.done}

    last = solve(post)
    assert (last["reward"], last["done"]) == (1.0, True)
    again = env.reset(tasks["last"].index)
    assert again.id == tasks["last"].id
    assert env.step("get 1 cornflower").observation == "Got 1 cornflower"
    env.close()


def plan(index: int, opening: str) -> list[str]:
    """The planner's actions for a goal whose opening shows these commands."""
    world = load_world()
    commands = opening.removeprefix("Crafting commands:\n").split("\n\nGoal: ")[0].split("\n")
    return [action.command for action in Planner(world, world.goals[index], commands).plan({})]


def test_planner_solves_every_goal() -> None:
    world = load_world()
    unsolved = []
    for index, goal in enumerate(world.goals):
        session = Session(world, goal)
        answers = [session.step(command)[1:] for command in plan(index, world.opening(goal))]
        if answers != [(0, False)] * (len(answers) - 1) + [(1, True)]:
            unsolved.append(goal)
    assert unsolved == []


def test_plans_are_executed_over_http(textcraft_url: str) -> None:
    env = make_environment("textcraft", textcraft_url)
    for index in range(0, len(load_world().goals), 20):
        answers = [env.step(command) for command in plan(index, env.reset(index).opening)]
        assert [(a.reward, a.done) for a in answers] == [(0, False)] * (len(answers) - 1) + [(1, True)]
    env.close()


def test_the_index_is_taken_modulo_the_number_of_goals(textcraft_url: str) -> None:
    env = make_environment("textcraft", textcraft_url)
    count = len(load_world().goals)
    openings = {env.reset(index).opening for index in (5, 5 + count, 5 - count, 5 + 1000 * count)}
    env.close()
    assert openings == {load_world().opening(load_world().goals[5])}


def test_split_is_served(textcraft_url: str) -> None:
    with HttpClient(textcraft_url) as client:
        assert client.get("/split").json() == load_world().split()


def test_about_names_the_goals_and_what_more_the_server_can_do(textcraft_url: str) -> None:
    with HttpClient(textcraft_url) as client:
        about = client.get("/about").json()
    assert about["env"] == "textcraft"
    assert about["kind"] == "agent-r-textcraft-" + load_world().digest()
    assert about["goals"] == len(load_world().goals)
    assert about["extensions"] == ["fork", "replay"]


def test_a_fork_goes_on_by_itself(textcraft_url: str) -> None:
    with HttpClient(textcraft_url) as client:

        def post(path: str, number: int, **body: Any) -> Any:
            return client.post(path, json={"id": number, **body}).json()

        first = client.post("/create", json={}).json()["id"]
        post("/reset", first, data_idx=3)
        post("/step", first, action="get 2 cornflower")
        second = post("/fork", first)["id"]
        assert second != first
        post("/step", first, action="get 1 cornflower")
        post("/step", second, action="get 5 cornflower")
        assert post("/step", first, action="inventory")["observation"] == "Inventory: [cornflower] (3) "
        assert post("/step", second, action="inventory")["observation"] == "Inventory: [cornflower] (7) "
        post("/close", first)
        assert post("/step", second, action="inventory")["observation"] == "Inventory: [cornflower] (7) "
        assert post("/fork", first) == invalid(first)


def test_a_replay_answers_as_its_requests_would_and_stops_when_done(textcraft_url: str) -> None:
    world = load_world()
    goal = world.goals[0]
    plan = [a.command for a in Planner(world, goal, world.commands(goal)).plan({})]
    with HttpClient(textcraft_url) as client:
        number = client.post("/create", json={}).json()["id"]
        reset = client.post("/reset", json={"id": number, "data_idx": 0}).json()
        steps = [client.post("/step", json={"id": number, "action": a}).json() for a in plan]
        assert steps[-1]["done"]
        body = {"id": number, "data_idx": 0, "actions": [*plan, "inventory"]}
        assert client.post("/replay", json=body).json() == {"reset": reset, "steps": steps}
        assert client.post("/replay", json={**body, "id": 10**6}).json() == invalid(10**6)


def test_a_count_beyond_all_numbers_is_an_error_answer(textcraft_url: str) -> None:
    with HttpClient(textcraft_url) as client:
        number = client.post("/create", json={}).json()["id"]
        answer = client.post("/step", json={"id": number, "action": f"get {'9' * 5000} stick"})
        assert answer.status_code == 200
        assert list(answer.json()) == ["error"]


@pytest.mark.slow
def test_many_sessions_at_once_do_not_mix(textcraft_url: str) -> None:
    def work(number: int) -> tuple[int, str]:
        with HttpClient(textcraft_url) as client:
            identity = client.post("/create", json={}).json()["id"]
            for _ in range(3):
                client.post("/step", json={"id": identity, "action": f"get {number} cornflower"})
            return identity, client.post("/step", json={"id": identity, "action": "inventory"}).json()[
                "observation"
            ]

    # Nothing is closed, so all sessions are open at the end.
    with ThreadPoolExecutor(16) as pool:
        results = list(pool.map(work, range(1, 221)))
    assert len({identity for identity, _ in results}) == 220
    assert [text for _, text in results] == [f"Inventory: [cornflower] ({3 * n}) " for n in range(1, 221)]


def test_a_session_store_keeps_its_counts_under_threads() -> None:
    sessions = Sessions(load_world(), idle_seconds=60, clock=lambda: 0.0)
    number = sessions.create()["id"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: sessions.step(number, "get 1 cornflower"), range(400)))
        ids = list(pool.map(lambda _: sessions.create()["id"], range(200)))
    assert sessions.step(number, "inventory")["observation"] == "Inventory: [cornflower] (400) "
    assert len(set(ids)) == 200


def test_idle_sessions_are_closed_and_used_ones_are_not() -> None:
    now = [0.0]
    sessions = Sessions(load_world(), idle_seconds=10, clock=lambda: now[0])
    idle, used = sessions.create()["id"], sessions.create()["id"]
    now[0] = 8
    sessions.step(used, "inventory")
    now[0] = 12
    sessions.step(used, "inventory")
    with pytest.raises(UnknownId, match=f"The id {idle} is not valid."):
        sessions.step(idle, "inventory")
    assert sessions.close(idle) is False
    assert sessions.create()["id"] not in (idle, used)


def start_server(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mcts_utils.servers.textcraft", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_the_command_says_where_it_serves_and_ends_cleanly(signum: int) -> None:
    process = start_server("--port", "0")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"TextCraft server on (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line
        env = make_environment("textcraft", match.group(1))  # its connection is open when the signal comes
        env.reset(0)
        process.send_signal(signum)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
        process.communicate()


def test_a_port_in_use_is_one_line_and_exit_code_2() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = start_server("--port", str(port))
        out, err = process.communicate(timeout=300)
    assert (process.returncode, out, err.count("\n")) == (2, "", 1)
    assert str(port) in err
