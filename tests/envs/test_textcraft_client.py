"""The TextCraft client against a server that fails on purpose: what it resends, replays, reports and closes."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from mcts_utils import patience
from mcts_utils.envs import http as env_http
from mcts_utils.envs import make_environment, task_id
from mcts_utils.envs.client import RECOVERIES, AgentGym
from mcts_utils.envs.errors import ConnectionLost
from mcts_utils.envs.http import RESENDS, HttpSession
from mcts_utils.servers.textcraft.sessions import Sessions
from mcts_utils.servers.textcraft.world import load_world
from mcts_utils.types import EnvError, InputError
from tests.helpers.faulty_server import (
    Fault,
    FaultyServer,
    Handler,
    body,
    connected,
    drop,
    drop_unheard,
    serving,
    slow,
    status,
)

STICK = load_world().goals.index("stick")
EMPTY = "Inventory: You are not carrying anything."


class Bundled:
    """The bundled server's sessions, with a public server's ids, which begin with 0 again after a restart."""

    id_field = "id"

    def __init__(self) -> None:
        self.sessions = Sessions(load_world(), idle_seconds=3600, clock=lambda: 0.0)
        self.sessions.store.new_id = count().__next__

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        calls: dict[str, Callable[[], Any]] = {
            "/": lambda: "This is environment TextCraft.",
            "/create": self.sessions.create,
            "/reset": lambda: self.sessions.reset(body["id"], body["data_idx"]),
            "/step": lambda: self.sessions.step(body["id"], body["action"]),
            "/close": lambda: self.sessions.close(body["id"]),
            "/fork": lambda: self.sessions.fork(body["id"]),
            "/about": lambda: {"kind": "agentgym", "extensions": ["fork"]},
            "/observation": lambda: self.sessions.detail(body["id"])["observation"],
        }
        if path not in calls:
            return 404, {"detail": "Not Found"}
        try:
            return 200, calls[path]()
        except LookupError as error:
            return 200, {"error": str(error)}


@pytest.fixture
def server() -> Iterator[FaultyServer]:
    with serving(Bundled) as running:
        yield running


@pytest.fixture
def env(server: FaultyServer) -> Iterator[AgentGym]:
    client = connected(server, "textcraft")
    yield client
    client.close()


def test_an_episode_uses_one_connection_and_one_session(server: FaultyServer, env: AgentGym) -> None:
    task = env.reset(STICK)
    assert (task.env, task.index) == ("textcraft", STICK)
    assert task.opening == load_world().opening("stick")
    assert env.step("get 1 bamboo").observation == "Got 1 bamboo"
    env.reset(0)
    assert env.step("inventory").observation == EMPTY
    assert server.connections == 1
    assert server.paths().count("/create") == 1


def test_reward_and_done_come_on_the_last_step_and_nothing_is_sent_after(
    server: FaultyServer, env: AgentGym
) -> None:
    env.reset(STICK)
    got = env.step("get 2 bamboo")
    assert (got.reward, got.done, got.disaster) == (0.0, False, False)
    made = env.step("craft 1 stick using 2 bamboo")
    assert (made.observation, made.reward, made.done) == ("Crafted 1 minecraft:stick", 1.0, True)
    sent = len(server.requests)
    with pytest.raises(EnvError, match="after the episode was done"):
        env.step("inventory")
    assert len(server.requests) == sent


def test_a_step_before_any_reset_is_an_error(env: AgentGym) -> None:
    with pytest.raises(EnvError, match="reset first"):
        env.step("inventory")


@pytest.mark.parametrize("lost", [drop, drop_unheard])
def test_a_step_whose_connection_breaks_is_replayed_and_never_resent(
    server: FaultyServer, env: AgentGym, lost: Fault
) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    server.faults["/step"] = [lost]
    assert env.step("get 1 bamboo").observation == "Got 1 bamboo"
    assert env.step("inventory").observation == "Inventory: [bamboo] (2) ", "no action happened twice"
    assert [(path, sent.get("id")) for path, sent in server.requests] == [
        ("/create", None),
        ("/reset", 0),
        ("/step", 0),
        ("/step", 0),
        ("/create", None),
        ("/reset", 1),
        ("/step", 1),
        ("/step", 1),
        ("/step", 1),
    ]


@pytest.mark.parametrize("loses", [FaultyServer.forget, FaultyServer.restart])
def test_a_session_that_the_server_forgot_is_replayed(
    server: FaultyServer, env: AgentGym, loses: Callable[[FaultyServer], None]
) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    loses(server)
    env.step("get 1 bamboo")
    assert env.step("inventory").observation == "Inventory: [bamboo] (2) "
    loses(server)
    assert env.reset(STICK).opening == load_world().opening("stick")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Moves the clock on, past the time that the client keeps an unused connection."""
    past = [0.0]
    now = patience.now
    monkeypatch.setattr(patience, "now", lambda: now() + past[0])

    def move() -> None:
        past[0] += 10 * env_http.KEEP_ALIVE

    return move


@pytest.mark.parametrize("slow_actor", [False, True])
def test_after_a_restart_nobody_plays_in_a_session_that_got_the_same_id(
    server: FaultyServer, env: AgentGym, later: Callable[[], None], slow_actor: bool
) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    server.restart()
    other = connected(server, "textcraft")
    other.reset(0)
    assert other.step("get 5 bamboo").observation == "Got 5 bamboo"
    assert server.requests[-1][1]["id"] == 0, "the id that the first client still has"
    if slow_actor:
        later()
    assert env.step("get 1 bamboo").observation == "Got 1 bamboo"
    assert env.step("inventory").observation == "Inventory: [bamboo] (2) "
    assert other.step("inventory").observation == "Inventory: [bamboo] (5) "
    server.restart()
    other.close()
    env.reset(STICK)
    assert env.step("inventory").observation == EMPTY


def test_after_a_restart_a_fork_plays_in_no_session_that_got_its_id(
    server: FaultyServer, env: AgentGym
) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    fork = env.fork()  # has the id 1, and a connection that was never used
    server.restart()
    others = [connected(server, "textcraft") for _ in range(2)]
    for other in others:
        other.reset(0)
        other.step("get 5 bamboo")
    assert server.requests[-1][1]["id"] == 1
    assert fork.step("get 1 bamboo").observation == "Got 1 bamboo"
    assert fork.step("inventory").observation == "Inventory: [bamboo] (2) ", "its own history, played again"
    for other in others:
        assert other.step("inventory").observation == "Inventory: [bamboo] (5) "
        other.close()
    fork.close()


def test_a_slow_actor_goes_on_in_its_session_over_a_new_connection(
    server: FaultyServer, env: AgentGym, later: Callable[[], None]
) -> None:
    env.reset(STICK)
    later()
    env.step("get 1 bamboo")
    later()
    assert env.step("inventory").observation == "Inventory: [bamboo] (1) "
    later()
    env.reset(STICK)
    later()
    env.close()
    assert server.connections == 5
    assert server.paths().count("/create") == 1
    assert server.requests[-1] == ("/close", {"id": 0})


def test_a_session_with_a_random_id_is_not_asked_for_its_last_observation(
    server: FaultyServer, env: AgentGym, later: Callable[[], None]
) -> None:
    assert isinstance(server.world, Bundled)
    server.world.sessions.store.new_id = count(2**52).__next__
    env.reset(STICK)
    later()
    assert env.step("get 1 bamboo").observation == "Got 1 bamboo"
    later()
    server.restart()
    assert env.step("inventory").observation == "Inventory: [bamboo] (1) ", "replayed in a new session"
    assert "/observation" not in server.paths()


def test_a_server_that_keeps_no_connections_can_be_used(server: FaultyServer, env: AgentGym) -> None:
    server.keep_alive = False
    env.reset(STICK)
    env.step("get 1 bamboo")
    assert env.step("inventory").observation == "Inventory: [bamboo] (1) "
    env.close()
    assert server.paths().count("/create") == 1
    assert server.requests[-1] == ("/close", {"id": 0})


def test_replays_are_bounded_and_the_next_reset_starts_anew(server: FaultyServer, env: AgentGym) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    server.faults["/step"] = [drop] * 20
    with pytest.raises(ConnectionLost, match="/step"):
        env.step("inventory")
    assert server.paths().count("/create") == 1 + RECOVERIES
    with pytest.raises(EnvError, match="reset first"):
        env.step("inventory")
    server.faults.clear()
    env.reset(STICK)
    assert env.step("inventory").observation == EMPTY


def test_a_replay_that_answers_otherwise_is_an_error(server: FaultyServer, env: AgentGym) -> None:
    env.reset(STICK)
    env.step("get 1 bamboo")
    other = body('{"observation": "Got 7 bamboo", "reward": 0, "done": false}')
    server.faults["/step"] = [drop, other]
    with pytest.raises(
        EnvError, match="step 0 'get 1 bamboo' answered 'Got 7 bamboo', before 'Got 1 bamboo'"
    ):
        env.step("inventory")
    assert server.requests[-1] == ("/close", {"id": 1}), "the session of the failed replay is closed"


def test_a_replay_that_finds_another_goal_is_an_error(server: FaultyServer, env: AgentGym) -> None:
    env.reset(STICK)
    elsewhere = json.dumps(
        {"id": 1, "observation": load_world().opening("ladder"), "done": False, "reward": 0}
    )
    server.faults = {"/step": [drop], "/reset": [body(elsewhere)]}
    with pytest.raises(EnvError, match="'ladder', not 'stick'"):
        env.step("inventory")


def test_other_listed_commands_after_a_restart_do_not_matter(server: FaultyServer, env: AgentGym) -> None:
    env.reset(STICK)
    server.faults = {"/step": [drop], "/reset": [reshuffled]}
    assert env.step("inventory").observation == EMPTY


def reshuffled(handler: Handler, result: Any) -> None:
    commands, goal = result["observation"].split("\n\n")
    heading, *lines = commands.split("\n")
    result["observation"] = "\n".join([heading, *reversed(lines)]) + "\n\n" + goal
    handler.answer(200, json.dumps(result).encode())


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(500), "HTTP 500: Internal Server Error"),
        (status(422), "HTTP 422"),
        (body('{"error": "the game has crashed"}'), "the game has crashed"),
        (body('{"observation": "x", "done": false}'), "'reward'"),
        (body('{"observation": "x", "reward": 7, "done": false}'), "reward 7"),
        (body('{"observation": "x", "reward": NaN, "done": false}'), "reward nan"),
        (body('{"observation": null, "reward": 0, "done": false}'), "'observation'"),
        (body('{"observation": "x", "reward": 0, "done": "no"}'), "'done'"),
        (body("[]"), "'reward'"),
    ],
)
def test_a_bad_answer_is_an_error_at_once_and_the_next_reset_gets_a_new_session(
    server: FaultyServer, env: AgentGym, fault: Fault, message: str
) -> None:
    env.reset(STICK)
    server.faults["/step"] = [fault]
    with pytest.raises(EnvError, match=message):
        env.step("get 1 bamboo")
    assert server.paths().count("/step") == 1, "neither resent nor replayed"
    assert server.requests[-1] == ("/close", {"id": 0})
    env.reset(STICK)
    assert env.step("inventory").observation == EMPTY
    assert server.requests[-1][1]["id"] == 1


def test_a_slow_answer_ends_in_an_error_and_is_not_asked_for_again(server: FaultyServer) -> None:
    session = HttpSession(server.url, timeout=30, backoff=0)
    number = session.post("/create", {})["id"]
    server.faults["/step"] = [slow]
    with pytest.raises(ConnectionLost, match="/step"):
        session.post("/step", {"id": number, "action": "get 1 bamboo"}, timeout=0.1)
    session.close()
    hasty = HttpSession(server.url, timeout=0.1, backoff=0)
    server.faults["/"] = [slow]
    with pytest.raises(
        ConnectionLost
    ):  # harmless, but a server that is too slow needs no second copy of the work
        hasty.get("/")
    hasty.close()
    for _ in range(2):
        assert server.heard.acquire(timeout=60)
    assert server.paths() == ["/create", "/step", "/"]


def test_a_reset_whose_connection_breaks_gets_a_new_session(server: FaultyServer, env: AgentGym) -> None:
    server.faults = {"/reset": [drop], "/create": [None, drop_unheard]}
    assert env.reset(STICK).opening == load_world().opening("stick")
    assert server.paths() == ["/create", "/reset", "/create", "/create", "/reset"]
    server.faults["/reset"] = [drop] * 20
    with pytest.raises(ConnectionLost, match="/reset"):
        env.reset(STICK)
    assert server.paths().count("/reset") == 3 + RECOVERIES, "bounded"


def test_a_lost_answer_is_asked_for_again_by_get_and_never_by_post(server: FaultyServer) -> None:
    session = HttpSession(server.url, timeout=30, backoff=0)
    server.faults = {"/": [drop, drop_unheard], "/create": [drop]}
    assert session.get("/") == "This is environment TextCraft."
    with pytest.raises(ConnectionLost, match="/create"):
        session.post("/create", {})
    assert server.paths() == ["/", "/", "/", "/create"]
    session.close()


def test_resends_are_bounded(server: FaultyServer) -> None:
    session = HttpSession(server.url, timeout=30, backoff=0)
    server.faults["/"] = [drop] * 20
    with pytest.raises(ConnectionLost):
        session.get("/")
    assert len(server.requests) == 1 + RESENDS
    session.close()


@pytest.mark.parametrize(
    "fault", [status(404), status(500), drop, body('{"error": "x"}'), body("false"), None]
)
def test_close_never_fails_and_a_closed_environment_can_be_reset(
    server: FaultyServer, env: AgentGym, fault: Fault | None
) -> None:
    env.reset(STICK)
    server.faults["/close"] = [fault]
    env.close()
    env.close()
    assert server.paths().count("/close") == 1
    env.reset(STICK)
    assert env.step("inventory").observation == EMPTY


def test_closing_when_the_server_is_gone_is_quiet() -> None:
    with serving(Bundled) as server:
        env = connected(server, "textcraft")
        env.reset(STICK)
    env.close()
    with pytest.raises(ConnectionLost, match="/create"):
        env.reset(STICK)


def test_half_a_character_from_a_model_can_be_sent(env: AgentGym) -> None:
    env.reset(STICK)
    assert env.step("get \ud83d bamboo").observation == "Could not execute get ? bamboo"


def test_an_opening_without_a_goal_is_an_error(server: FaultyServer, env: AgentGym) -> None:
    server.faults["/reset"] = [body('{"id": 0, "observation": "hello", "done": false, "reward": 0}')]
    with pytest.raises(EnvError, match="no line 'Goal: craft"):
        env.reset(STICK)


def test_task_ids_name_the_goal_and_nothing_else() -> None:
    first = task_id("textcraft", "Crafting commands:\ncraft 1 a using 1 b\n\nGoal: craft oak door.")
    assert task_id("textcraft", "Crafting commands:\ncraft 2 c using 1 d\n\nGoal: craft oak door.") == first
    assert task_id("textcraft", "Crafting commands:\ncraft 1 a using 1 b\n\nGoal: craft oak boat.") != first
    with pytest.raises(InputError, match="'chess'"):
        task_id("chess", "x")


def test_make_environment_finds_the_server(server: FaultyServer) -> None:
    env = make_environment("textcraft", server.url + "/")
    assert env.reset(STICK).id == task_id("textcraft", load_world().opening("stick"))
    env.close()


def test_an_unreachable_server_is_bad_input_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(patience, "pause", waits.append)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(InputError, match=url) as caught:
        make_environment("textcraft", url)
    assert "\n" not in str(caught.value)
    assert len(waits) == RESENDS
    assert all(0 < wait < 5 for wait in waits), "bounded back-off"
    assert waits[-1] > waits[0]


@pytest.mark.parametrize(
    "url",
    ["", "localhost:26001", "ftp://127.0.0.1", "http://", "http://h:port", "http://h:99999"],
)
def test_what_is_no_url_is_bad_input(url: str) -> None:
    with pytest.raises(InputError, match="env_server_base"):
        make_environment("textcraft", url)


def test_an_unknown_task_is_bad_input(server: FaultyServer) -> None:
    with pytest.raises(InputError, match="'chess' is unknown; known: academia, .*, webshop, wordle"):
        make_environment("chess", server.url)


@pytest.mark.parametrize("greeting", [body('"This is environment WebShop."'), status(404), body("<html>")])
def test_another_server_is_bad_input(server: FaultyServer, greeting: Fault) -> None:
    server.faults["/"] = [greeting] * 4
    with pytest.raises(InputError, match=server.url):
        make_environment("textcraft", server.url)
