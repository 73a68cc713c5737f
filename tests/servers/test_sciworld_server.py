"""The bundled ScienceWorld server: AgentGym's contract request by request, the Java processes, and the shutdown.

The conformance part plays against any base URL, a public AgentGym ScienceWorld server as well:

    CONFORMANCE_URL=http://127.0.0.1:8000 python -m pytest tests/servers/test_sciworld_server.py -k conformance
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scienceworld", reason="the scienceworld package is not installed")
from mcts_utils.servers.app_server import running
from mcts_utils.servers.sciworld import __main__ as program
from mcts_utils.servers.sciworld import jvm
from mcts_utils.servers.sciworld.app import create_app
from mcts_utils.servers.sciworld.expert import known_games
from mcts_utils.servers.sciworld.games import games, split
from mcts_utils.servers.sciworld.pool import SPREAD, Pool
from mcts_utils.servers.sciworld.sessions import Sessions, stripped
from mcts_utils.servers.session_store import Full, UnknownId
from tests.helpers.http_client import HttpClient

SETUP = jvm.Setup(heap="256m")
TASKS = list(dict.fromkeys(game.task for game in games()))


def in_java(test: Callable[..., None]) -> Any:
    """Mark a test as played in our simulator, unless a public server's address is given."""
    return test if os.environ.get("CONFORMANCE_URL") else pytest.mark.java(test)


def first_game(task: str) -> int:
    return next(index for index, game in enumerate(games()) if game.task == task)


@pytest.fixture(scope="module")
def jar() -> Path:
    return jvm.check(SETUP)


@pytest.fixture(scope="module")
def pool(jar: Path) -> Iterator[Pool]:
    made = Pool(2, SETUP, jar)
    yield made
    made.close()


@pytest.fixture(scope="module")
def single(jar: Path) -> Iterator[Pool]:
    """A pool of one process, for one test after the other."""
    made = Pool(1, SETUP, jar)
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(pool: Pool) -> Iterator[HttpClient]:
    with running(create_app(pool)) as url, connect(url) as made:
        yield made


@pytest.fixture(scope="module")
def conformance(request: pytest.FixtureRequest) -> Iterator[HttpClient]:
    url = os.environ.get("CONFORMANCE_URL")
    if url:
        with connect(url) as made:
            yield made
    else:
        yield request.getfixturevalue("client")


def connect(base_url: str) -> HttpClient:
    # No keep-alive: a public server's connection is dead after a 500. No certificates: loading them takes longer.
    return HttpClient(base_url, timeout=300, keep_alive=False)


def create(client: HttpClient) -> int:
    answer = client.post("/create").json()
    assert set(answer) == {"id"}
    return answer["id"]


def step(client: HttpClient, number: int, action: str) -> Any:
    return client.post("/step", json={"id": number, "action": action}).json()


def reset(client: HttpClient, number: int, index: int) -> Any:
    return client.post("/reset", json={"id": number, "data_idx": index}).json()


def said(observation: str) -> dict[str, Any]:
    return {"observation": observation, "reward": 0, "score": 0, "done": False}


@in_java
def test_conformance_before_a_reset(conformance: HttpClient) -> None:
    assert conformance.get("/").json() == "This is environment ScienceWorld."
    number = conformance.post("/create", json={"foo": 1}).json()["id"]
    look = {"id": number}
    assert conformance.get("/detail", params=look).json() == {"deleted": False, "done": False}
    assert conformance.get("/observation", params=look).json() == {"error": "'observation'"}
    text = "'ScienceWorldEnv' object has no attribute 'variationIdx'"
    assert step(conformance, number, "look around") == {"error": text}
    assert "getGoalProgressStr" in conformance.get("/goals", params=look).json()["error"]
    assert conformance.post("/close", json=look).json() is True


@in_java
def test_conformance_of_an_episode(conformance: HttpClient) -> None:
    number = create(conformance)
    opening = reset(conformance, number, 0)
    assert set(opening) == {
        *("task_name", "var_num", "task_description", "observation", "reward", "score", "deleted", "done")
    }
    assert (opening["task_name"], opening["var_num"], opening["deleted"]) == ("boil", 0, False)
    assert opening["task_description"].startswith("Your task is to boil water.")
    assert opening["observation"].startswith("This room is called the hallway.")
    unknown = said("No known action matches that input.")
    assert step(conformance, number, "dance") == unknown
    assert step(conformance, number, "") == unknown
    assert step(conformance, number, "Thought: x\nAction: inventory") == unknown, (
        "/step takes its text as it is"
    )
    assert step(conformance, number, "LOOK AROUND") == said(opening["observation"])
    assert step(conformance, number, "inventory") == said("In your inventory, you see:\n\tan orange")
    assert step(conformance, number, "task") == said(f"Task description:\n{opening['task_description']}")
    assert step(conformance, number, "open door to kitchen") == said("The door is now open.")
    assert step(conformance, number, "go to kitchen") == said("You move to the kitchen.")
    assert step(conformance, number, "wait1") == said("You decide to wait for 1 iterations.")
    seen = conformance.post(
        "/step_visual", json={"id": number, "action": "Thought: x\nAction: inventory</s>"}
    ).json()
    info = seen.pop("info")
    assert {k: seen[k] for k in ("observation", "reward", "score", "done", "moves")} == {
        **said("In your inventory, you see:\n\tan orange"),
        "moves": 4,
    }
    assert seen["inventory"] == info["inv"] and seen["object_tree"]["name"] == "universe"
    assert (info["moves"], info["score"], info["reward"], info["variationIdx"]) == (4, 0, 0, 0)
    assert (info["taskName"], info["simplificationStr"]) == ("boil", "")
    assert info["look"].startswith("This room is called the kitchen.")
    assert {"focus on stove", "close door to hallway"} <= set(info["valid"])
    assert info["valid"] == sorted(info["valid"])
    hint = conformance.get("/action_hint", params={"id": number}).json()
    assert set(hint) == {"possible_actions", "possible_objects"}
    assert "focus on OBJ" in hint["possible_actions"] and "stove" in hint["possible_objects"]
    assert "focus on substance" in conformance.get("/goals", params={"id": number}).json()["goals"]
    state = conformance.get("/state", params={"id": number}).json()
    assert (state["current_moves"], len(state["possible_actions"])) == (4, 10)
    assert state["environment_info"]["task_name"] == "boil"
    text = conformance.get("/task_description", params={"id": number}).json()
    assert text == {"task_description": opening["task_description"]}
    tree = conformance.get("/object_tree", params={"id": number}).json()
    assert tree["object_tree"]["name"] == "universe"
    lost = {"observation": "You focus on the stove.", "reward": -100, "score": -100, "done": True}
    assert step(conformance, number, "focus on stove") == lost
    finished = {"error": f"The task with environment {number} has finished."}
    assert step(conformance, number, "look around") == finished
    for path in ("/observation", "/detail", "/goals", "/state", "/object_tree", "/action_hint"):
        assert conformance.get(path, params={"id": number}).json() == finished, path
    assert reset(conformance, number, 0)["reward"] == 0, "a new episode starts without the old score"
    assert conformance.get("/observation", params={"id": number}).json() == opening["observation"]
    assert conformance.post("/close", json={"id": number}).json() is True


@in_java
def test_conformance_of_wrong_requests(conformance: HttpClient) -> None:
    number = create(conformance)
    assert reset(conformance, number, len(games())) == {"error": "list index out of range"}
    last = reset(conformance, number, -1)
    assert (last["task_name"], last["var_num"]) == ("identify-life-stages-2", 9)
    unknown = {"error": "The id 999999 is not valid."}
    assert step(conformance, 999999, "look around") == unknown
    assert reset(conformance, 999999, 0) == unknown
    assert conformance.get("/detail", params={"id": 999999}).json() == unknown
    for body, field in (({"id": number}, "action"), ({"env_idx": 0, "action": "x"}, "id")):
        answer = conformance.post("/step", json=body)
        assert answer.status_code == 422
        found = answer.json()["detail"][0]
        assert (found["type"], found["loc"]) == ("missing", ["body", field])
    assert conformance.post("/reset", json={"id": number}).status_code == 422
    assert conformance.post("/close", json={"id": number}).json() is True
    gone = f"The task with environment {number} has been deleted.", f"The id {number} is not valid."
    assert step(conformance, number, "look around")["error"] in gone
    assert reset(conformance, number, 0)["error"] in gone
    for again in (number, 999999):
        answer = conformance.post("/close", json={"id": again})
        assert (answer.status_code, answer.text) == (500, "Internal Server Error")


@in_java
def test_conformance_of_the_move_limit(conformance: HttpClient) -> None:
    number = create(conformance)
    reset(conformance, number, 0)
    answers = [step(conformance, number, "wait") for _ in range(9)]  # 11 moves each
    assert not any(answer["done"] for answer in answers)
    assert not step(conformance, number, "open door to kitchen")["done"], "100 moves are allowed"
    assert not step(conformance, number, "look around")["done"], "a look is no move"
    assert step(conformance, number, "open door to workshop")["done"]
    assert "has finished" in step(conformance, number, "look around")["error"]
    conformance.post("/close", json={"id": number})


@pytest.mark.java
def test_the_list_of_games_is_the_packages(client: HttpClient, pool: Pool) -> None:
    from scienceworld.constants import ID2TASK

    left_out = {"5-1", "5-2", "9-1", "9-2", "9-3", "10-1", "10-2"}
    tasks = [task for key, task in ID2TASK.items() if key not in left_out]
    simulator = pool.simulator()
    counts = {task: simulator.variations(task) for task in tasks}
    pool.release(simulator)
    assert [(g.task, g.variation) for g in games()] == [(t, n) for t in tasks for n in range(counts[t])]
    assert len(games()) == 4639
    about = client.get("/about").json()
    assert about == {"env": "sciworld", "kind": "agentgym", "goals": 4639, "extensions": ["replay"]}


@pytest.mark.java
def test_the_split_is_served_and_disjoint(client: HttpClient) -> None:
    served = client.get("/split").json()
    assert served == split()
    assert not set(served["train"]) & set(served["test"])
    assert len(served["test"]) == 200 and {games()[i].task for i in served["train"]} == set(TASKS)


@pytest.mark.java
def test_a_gold_path_is_served(client: HttpClient) -> None:
    """The known path of every task earns everything, too: tests/envs/test_sciworld_client.py."""
    index = first_game("find-non-living-thing")
    actions = client.get("/gold", params={"data_idx": index}).json()["actions"]
    number = create(client)
    answer = client.post("/replay", json={"id": number, "data_idx": index, "actions": actions}).json()
    assert answer["reset"]["task_name"] == "find-non-living-thing"
    assert answer["steps"][-1]["score"] == 100 and answer["steps"][-1]["done"]
    assert [s["done"] for s in answer["steps"][:-1]] == [False] * (len(answer["steps"]) - 1)
    assert sum(s["reward"] for s in answer["steps"]) == 100
    client.post("/close", json={"id": number})
    missing = client.get("/gold", params={"data_idx": len(games())}).json()
    assert missing == {"error": "list index out of range"}


@pytest.mark.java
def test_replay_is_reset_and_steps(client: HttpClient) -> None:
    one, other = create(client), create(client)
    actions = ["open door to kitchen", "dance", "go to kitchen", "focus on stove", "look around"]
    answer = client.post("/replay", json={"id": one, "data_idx": 0, "actions": actions}).json()
    assert answer["reset"] == reset(client, other, 0)
    assert answer["steps"] == [step(client, other, action) for action in actions[:4]], "it stops when done"
    assert "finished" in step(client, one, "look around")["error"]
    for number in (one, other):
        client.post("/close", json={"id": number})


@pytest.mark.java
def test_sessions_in_one_process_do_not_disturb_each_other(jar: Path) -> None:
    pool = Pool(1, jvm.Setup(heap="256m", reproducible=True), jar)
    sessions = Sessions(pool, 3600, lambda: 0.0)
    try:
        solved = {game.task: game for game in known_games().values()}
        paths = {solved[task].id: solved[task].path for task in TASKS[7::5]}
        chosen = list(paths)
        number = sessions.create()["id"]
        alone = {index: sessions.replay(number, index, paths[index])["steps"] for index in chosen}
        together = {index: sessions.create()["id"] for index in chosen}
        for index, other in together.items():
            sessions.reset(other, index)
        seen: dict[int, list] = {index: [] for index in chosen}
        for turn in range(max(map(len, alone.values()))):
            for index, other in together.items():
                if turn < len(alone[index]):
                    seen[index].append(sessions.step(other, paths[index][turn]))
        assert seen == alone
        assert len(pool.jvms) == 1
    finally:
        pool.close()


@pytest.mark.java
def test_processes_are_shared_and_never_more_than_allowed(jar: Path) -> None:
    pool = Pool(2, SETUP, jar)
    sessions = Sessions(pool, 3600, lambda: 0.0)
    try:
        assert pool.jvms == [], "nothing starts before it is needed"
        with ThreadPoolExecutor(8) as threads:
            numbers = list(threads.map(lambda _: sessions.create()["id"], range(20)))
            rooms = list(
                threads.map(lambda n: sessions.reset(n, (n * 71) % len(games()))["observation"], numbers[::5])
            )
            assert all(room.startswith("This ") for room in rooms)
            list(threads.map(lambda n: sessions.step(n, "look around"), numbers[::5]))
        assert len(set(numbers)) == 20
        assert [process.simulators for process in pool.jvms] == [10, 10]
        for number in numbers:
            sessions.close(number)
        assert [process.simulators for process in pool.jvms] == [0, 0]
        sessions.create()
        assert len(pool.jvms) == 2, "a process is used again"
        assert SPREAD < 10
    finally:
        pool.close()
    assert pool.jvms == []
    with pytest.raises(Full):
        pool.simulator()


@pytest.mark.java
def test_idle_environments_are_closed_and_a_close_is_counted(single: Pool) -> None:
    now = [0.0]
    sessions = Sessions(single, 10, lambda: now[0])
    idle, used = sessions.create()["id"], sessions.create()["id"]
    now[0] = 8
    sessions.reset(used, 0)
    now[0] = 12
    assert sessions.step(used, "dance")["observation"].startswith("No known action")
    with pytest.raises(UnknownId, match=f"The id {idle} is not valid."):
        sessions.reset(idle, 0)
    assert single.jvms[0].simulators == 1
    assert sessions.close(idle) is False
    assert sessions.close(used) is True
    assert single.jvms[0].simulators == 0


@pytest.mark.java
def test_a_process_that_dies_loses_its_environments_only(single: Pool) -> None:
    sessions = Sessions(single, 3600, lambda: 0.0)
    number = sessions.create()["id"]
    sessions.reset(number, 0)
    single.jvms[0].process.kill()
    single.jvms[0].process.wait()
    with pytest.raises(UnknownId, match=f"The id {number} is not valid."):
        sessions.step(number, "look around")
    again = sessions.create()["id"]
    assert sessions.reset(again, 0)["task_name"] == "boil"
    assert again != number and len(single.jvms) == 1
    assert sessions.close(again) is True


@pytest.mark.parametrize(
    ("reply", "action"),
    [
        ("look around", "look around"),
        ("Thought: x\nAction: go to kitchen</s>", "go to kitchen"),
        ("Action: a Action: b", "a"),
        (" wait", " wait"),
    ],
)
def test_the_action_in_a_reply(reply: str, action: str) -> None:
    assert stripped(reply) == action


def start(*flags: str, **more: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "mcts_utils.servers.sciworld", *flags]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(") ")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid:
            found.append(int(path.parent.name))
    return found


@pytest.mark.java
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="it finds processes under /proc")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_server(jar: Path, signum: int) -> None:
    process = start("--port", "0", "--heap", "256m")
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"ScienceWorld server on (http://127\.0\.0\.1:\d+)\n", line)
        assert match, line
        with connect(match.group(1)) as client:
            reset(client, create(client), 0)
        java = children(process.pid)
        assert len(java) == 1
        ended = os.pidfd_open(java[0])  # readable once the process is no more than a zombie
        process.send_signal(signum)
        out, err = process.communicate(timeout=300)
        expected = -signum if signum == signal.SIGKILL else 0
        assert (process.returncode, out, err) == (expected, "", "")
        # Killed hard, the server cannot wait: the process sees its input close and ends by itself.
        assert select.select([ended], [], [], 120)[0], "the Java process still runs"
        os.close(ended)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (None, r"java: no program '.*java' found; ScienceWorld needs Java 11 or later\n"),
        ("echo 'openjdk version \"1.8.0_392\"' >&2", r"java: \S+java is version 8; .* needs 11 or later\n"),
        ("echo no good >&2; exit 1", r"java: \S+java does not start with --heap 384m: no good\n"),
    ],
)
def test_a_missing_or_old_java_is_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], script: str | None, said: str
) -> None:
    java = tmp_path / "java"
    if script is not None:
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
    assert program.main(["--port", "0", "--java", str(java)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(said, err), err


def test_a_missing_package_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    hide = (
        "import sys, runpy\n"
        "for name in ('scienceworld', 'py4j', 'py4j.java_gateway'): sys.modules[name] = None\n"
        "sys.argv = ['x', '--port', '0']\n"
        "runpy.run_module('mcts_utils.servers.sciworld', run_name='__main__')\n"
    )
    done = subprocess.run([sys.executable, "-c", hide], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("scienceworld: ") and "pip install scienceworld" in done.stderr


@pytest.mark.java
@pytest.mark.parametrize(("flag", "value"), [("--jvms", "0"), ("--heap", "lots"), ("--idle_seconds", "0")])
def test_a_bad_flag_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], flag: str, value: str
) -> None:
    assert program.main(["--port", "0", flag, value]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert flag in err and value in err
