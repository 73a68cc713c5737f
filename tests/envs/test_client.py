"""The clients of all environments against servers that fail on purpose: what they resend, replay, report and close."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcts_utils import patience
from mcts_utils.envs import http as env_http
from mcts_utils.envs import make_environment, server_about
from mcts_utils.envs.client import AgentGym
from mcts_utils.envs.errors import ConnectionLost
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs import env_spec
from mcts_utils.servers.textcraft.app import running_server as running_textcraft
from mcts_utils.servers.webshop.app import running_server as running_webshop
from mcts_utils.types import EnvError, Environment, InputError, StepResult
from tests.helpers.faulty_server import (
    Fault,
    FaultyServer,
    body,
    connected,
    drop,
    drop_unheard,
    serving,
    slow,
    status,
)
from tests.helpers.toy_worlds import Baby, Science, Shop

WORLDS = {"sciworld": Science, "webshop": Shop, "babyai": Baby}
WINS = {
    "sciworld": ("open door to kitchen", "pick up metal pot", "boil water in metal pot"),
    "webshop": ("search[lamp]", "click[b0123456789]", "click[buy now]"),
    "babyai": ("move forward", "move forward", "move forward"),
}
REWARDS = {"sciworld": (0.2, 0.6, 1.0), "webshop": (0.0, 0.0, 0.75), "babyai": (0.0, 0.0, 0.9)}
OPENINGS = {
    "sciworld": "Your task is to boil water.\nThis room is called the hallway.",
    "webshop": "WebShop [SEP] Instruction: [SEP] Find me lamp 3, and price lower than ",
    "babyai": "Your goal: go to the red ball\nYou are facing a wall 3 steps away.",
}
GOAL = 3  # its index


@pytest.fixture(params=sorted(WORLDS))
def env_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def server(env_name: str) -> Iterator[FaultyServer]:
    with serving(WORLDS[env_name]) as running:
        yield running


@pytest.fixture
def env(server: FaultyServer, env_name: str) -> Iterator[AgentGym]:
    client = connected(server, env_name)
    yield client
    client.close()


@pytest.fixture
def science() -> Iterator[FaultyServer]:
    with serving(Science) as running:
        yield running


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Moves the clock on, past the time that the client keeps an unused connection."""
    past = [0.0]
    now = patience.now
    monkeypatch.setattr(patience, "now", lambda: now() + past[0])

    def move() -> None:
        past[0] += 10 * env_http.KEEP_ALIVE

    return move


def won(env: Environment, env_name: str, begun: int = 0) -> bool:
    """Play the winning actions from number `begun` on; true if each earned what it should."""
    results = [env.step(action) for action in WINS[env_name][begun:]]
    last = [False] * (len(results) - 1) + [True]
    return [(r.reward, r.done) for r in results] == list(zip(REWARDS[env_name][begun:], last, strict=True))


def test_an_episode_uses_one_connection_and_one_session(
    server: FaultyServer, env: AgentGym, env_name: str
) -> None:
    for _ in range(2):
        task = env.reset(GOAL)
        assert (task.env, task.index) == (env_name, GOAL)
        assert task.opening.startswith(OPENINGS[env_name])
        assert task.id == env_spec(env_name).task_id(task.opening, GOAL)
        assert won(env, env_name)
        sent = len(server.requests)
        with pytest.raises(EnvError, match="after the episode was done"):
            env.step("anything")
        assert len(server.requests) == sent
    assert server.connections == 1
    assert server.paths().count("/create") == 1
    env.close()
    assert server.paths()[-1] == "/close"
    assert won_after_close(env, env_name)


def won_after_close(env: AgentGym, env_name: str) -> bool:
    env.reset(GOAL)
    return won(env, env_name)


@pytest.mark.parametrize("lost", [drop, drop_unheard])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_step_whose_connection_breaks_is_replayed_and_never_resent(
    server: FaultyServer, env: AgentGym, env_name: str, lost: Fault, number: int
) -> None:
    env.reset(GOAL)
    for action in WINS[env_name][:number]:
        env.step(action)
    server.faults["/step"] = [lost]
    assert won(env, env_name, number)
    wins = list(WINS[env_name])
    assert server.actions() == wins[: number + 1] + wins
    assert server.paths().count("/reset") == 2


@pytest.mark.parametrize("lost", [drop, drop_unheard])
def test_a_reset_whose_connection_breaks_is_made_again(
    server: FaultyServer, env: AgentGym, env_name: str, lost: Fault
) -> None:
    server.faults["/reset"] = [lost]
    env.reset(GOAL)
    assert won(env, env_name)


def test_lost_connections_are_bounded_and_the_next_reset_works(
    server: FaultyServer, env: AgentGym, env_name: str
) -> None:
    env.reset(GOAL)
    server.faults["/step"] = [drop] * 20
    with pytest.raises(ConnectionLost, match="/step"):
        env.step(WINS[env_name][0])
    with pytest.raises(EnvError, match="reset first"):
        env.step(WINS[env_name][0])
    server.faults.clear()
    env.reset(GOAL)
    assert won(env, env_name)


def test_a_server_that_keeps_no_connections_can_be_used(
    server: FaultyServer, env: AgentGym, env_name: str
) -> None:
    server.keep_alive = False
    for _ in range(2):
        env.reset(GOAL)
        assert won(env, env_name)
    assert server.paths().count("/create") == 1


def test_a_slow_actor_goes_on_in_its_session(
    server: FaultyServer, env: AgentGym, env_name: str, later: Callable[[], None]
) -> None:
    for _ in range(2):
        env.reset(GOAL)
        for number, action in enumerate(WINS[env_name]):
            later()
            assert env.step(action).reward == REWARDS[env_name][number]
        later()
    assert server.paths().count("/create") == 1


@pytest.mark.parametrize("loses", [FaultyServer.forget, FaultyServer.restart])
def test_a_session_that_the_server_lost_is_replayed(
    env_name: str, loses: Callable[[FaultyServer], None]
) -> None:
    worlds: dict[str, Any] = {**WORLDS, "webshop": lambda: Shop(fixed_price=40)}
    with serving(worlds[env_name]) as server:
        env = connected(server, env_name)
        env.reset(GOAL)
        env.step(WINS[env_name][0])
        loses(server)
        assert won(env, env_name, 1)
        loses(server)
        env.reset(GOAL)
        assert won(env, env_name)
        env.close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (status(500), "HTTP 500: Internal Server Error"),
        (status(422), "HTTP 422"),
        (body('{"error": "the game has crashed"}'), "the game has crashed"),
        (body("{}"), "without a proper"),
        (body("[]"), "without a proper"),
    ],
)
def test_a_bad_answer_is_an_error_at_once_and_the_next_reset_works(
    server: FaultyServer, env: AgentGym, env_name: str, fault: Fault, message: str
) -> None:
    env.reset(GOAL)
    env.step(WINS[env_name][0])
    server.faults["/step"] = [fault]
    with pytest.raises(EnvError, match=message):
        env.step(WINS[env_name][1])
    assert len(server.actions()) == 2, "neither resent nor replayed"
    # A session that can be closed is closed; WebShop's is used again, since nobody can close it.
    closed = env_name != "webshop"
    assert (server.paths()[-1] == "/close") is closed
    env.reset(GOAL)
    assert won(env, env_name)
    assert server.paths().count("/create") == 1 + closed


def test_an_index_that_is_none_is_an_error(env_name: str) -> None:
    if env_name == "babyai":
        pytest.skip("BabyAI has a goal for every index")
    with serving(WORLDS[env_name]) as server:
        env = connected(server, env_name)
        with pytest.raises(EnvError, match="out of range|HTTP 500"):
            env.reset(1000)
        env.reset(GOAL)
        assert won(env, env_name)
        env.close()


@pytest.mark.parametrize(
    "fault", [status(404), status(500), drop, body('{"error": "x"}'), body("false"), None]
)
def test_close_never_fails(server: FaultyServer, env: AgentGym, fault: Fault | None) -> None:
    env.reset(GOAL)
    server.faults["/close"] = [fault]
    env.close()
    env.close()
    assert server.paths().count("/close") == 1


def test_closing_when_the_server_is_gone_is_quiet(env_name: str) -> None:
    with serving(WORLDS[env_name]) as server:
        env = connected(server, env_name)
        env.reset(GOAL)
    env.close()
    with pytest.raises(ConnectionLost, match="/create"):
        env.reset(GOAL)


# ---- What is particular to ScienceWorld


def test_a_wrong_focus_is_a_disaster(science: FaultyServer) -> None:
    env = connected(science, "sciworld")
    env.reset(0)
    env.step("open door to kitchen")
    assert env.step("focus on stove") == StepResult("You focus on stove.", 0.0, True, True)
    env.reset(0)
    assert won(env, "sciworld")
    env.close()


def test_other_observations_of_a_replay_are_accepted_but_no_other_score(science: FaultyServer) -> None:
    env = connected(science, "sciworld")
    env.reset(0)
    first = env.step("look around").observation
    env.step("open door to kitchen")
    science.faults["/step"] = [drop]
    assert env.step("pick up metal pot").reward == 0.6
    assert env.step("look around").observation != first, "another session, another temperature"
    answer = '{"observation": "You open door to kitchen.", "reward": 5, "score": 5, "done": false}'
    science.faults["/step"] = [drop, None, body(answer)]
    with pytest.raises(EnvError, match="step 1 'open door to kitchen' earned .* before"):
        env.step("look at stove")
    env.close()


def test_an_action_that_a_replay_refuses_is_an_error(science: FaultyServer) -> None:
    env = connected(science, "sciworld")
    env.reset(0)
    env.step("look at stove")
    refusal = '{"observation": "No known action matches that input.", "reward": 0, "score": 0, "done": false}'
    science.faults["/step"] = [drop, body(refusal)]
    with pytest.raises(EnvError, match="step 0 'look at stove'"):
        env.step("wait1")
    env.close()


def test_after_a_restart_nobody_plays_in_a_session_that_got_the_same_id(
    science: FaultyServer, later: Callable[[], None]
) -> None:
    env, other = connected(science, "sciworld"), connected(science, "sciworld")
    env.reset(0)
    env.step("open door to kitchen")
    science.restart()
    other.reset(0)
    assert other.step("pick up metal pot").reward == 0.4
    later()
    assert won(env, "sciworld", 1)
    assert other.step("open door to kitchen").reward == 0.6
    env.close()
    other.close()


def test_an_action_that_is_not_understood_is_replaced_by_the_valid_one_that_is_meant(
    science: FaultyServer,
) -> None:
    env = connected(science, "sciworld")
    env.reset(0)
    meant = env.step("open the kitchen door")
    assert meant == StepResult(
        "You open door to kitchen.", 0.2, False, grounded_action="open door to kitchen"
    )
    assert env.step("take the pot").grounded_action == "pick up metal pot"
    assert science.requests[2:] == [
        ("/step", {"id": 0, "action": "open the kitchen door"}),
        ("/step_visual", {"id": 0, "action": "look around"}),
        ("/step", {"id": 0, "action": "open door to kitchen"}),
        ("/step", {"id": 0, "action": "take the pot"}),
        ("/step_visual", {"id": 0, "action": "look around"}),
        ("/step", {"id": 0, "action": "pick up metal pot"}),
    ]
    science.restart()
    science.requests.clear()
    assert env.step("boil water in metal pot") == StepResult("You boil water in metal pot.", 1.0, True)
    assert science.actions() == ["open door to kitchen", "pick up metal pot", "boil water in metal pot"], (
        "a replay executes what was executed"
    )
    env.close()


def test_what_means_nothing_is_refused_in_the_environments_words(science: FaultyServer) -> None:
    env = connected(science, "sciworld")
    env.reset(0)
    assert env.step("dance") == StepResult("No known action matches that input.", 0.0, False)
    assert env.step("pick up cup").observation.startswith("Ambiguous request"), "a number comes next"
    assert science.paths().count("/step_visual") == 1
    science.keep_alive = False
    assert env.step("dance").observation == "No known action matches that input."
    assert env.step("open door to kitchen").reward == 0.2
    assert science.paths().count("/create") == 1
    env.close()


def test_grounding_can_be_turned_off(science: FaultyServer) -> None:
    env = connected(science, "sciworld", grounding=False)
    env.reset(0)
    assert env.step("open the kitchen door").observation == "No known action matches that input."
    assert "/step_visual" not in science.paths()
    env.close()


def test_no_other_environment_is_asked_for_valid_actions() -> None:
    with serving(Baby) as server:
        env = connected(server, "babyai")
        env.reset(0)
        assert env.step("walk forward").grounded_action == ""
        assert server.paths() == ["/create", "/reset", "/step"]
        env.close()


# ---- What is particular to WebShop: the price limit belongs to the session


@pytest.fixture
def shop() -> Iterator[FaultyServer]:
    with serving(Shop) as running:
        yield running


def test_a_task_keeps_its_session_and_its_price_limit(shop: FaultyServer) -> None:
    env = connected(shop, "webshop")
    opening = env.reset(GOAL).opening
    env.step("search[lamp]")
    shop.faults["/step"] = [drop]
    env.step("click[b0123456789]")
    assert shop.paths().count("/create") == 1, "a broken connection is no reason for another price limit"
    assert env.reset(GOAL).opening == opening
    shop.faults["/step"] = [status(500)]
    with pytest.raises(EnvError, match="HTTP 500"):
        env.step("search[lamp]")
    assert env.reset(GOAL).opening == opening
    env.close()


def test_a_replay_that_finds_another_price_limit_is_an_error(shop: FaultyServer) -> None:
    env = connected(shop, "webshop")
    first = env.reset(GOAL)
    env.step("search[lamp]")
    shop.restart()
    with pytest.raises(EnvError, match="index 3 opens .*price lower than .*, before .*price lower than"):
        env.step("click[b0123456789]")
    again = env.reset(GOAL)
    assert again.id == first.id
    assert again.opening != first.opening
    assert won(env, "webshop")
    env.close()


class Slow(HttpSession):
    """Gives up waiting for the first answer of /step."""

    gave_up = False

    def post(self, path: str, *args: Any, **more: Any) -> Any:
        answer = super().post(path, *args, **more)
        if path == "/step" and not self.gave_up:
            self.gave_up = True
            lost = ConnectionLost("no answer in time")
            lost.slow = True
            raise lost
        return answer


@pytest.mark.parametrize("price", [0, 40])
def test_a_session_that_may_still_be_busy_is_left(price: int) -> None:
    with serving(lambda: Shop(price)) as server:
        env = AgentGym(Slow(server.url, backoff=0), env_spec("webshop"))
        env.reset(GOAL)
        if price:
            assert won(env, "webshop")
        else:
            with pytest.raises(EnvError, match="price lower than"):
                env.step("search[lamp]")
        assert server.paths().count("/create") == 2
        env.close()


def test_a_slow_answer_is_told_as_such(shop: FaultyServer) -> None:
    # The only request that may time out here is one that is never answered.
    session = HttpSession(shop.url, backoff=0)
    number = session.post("/create", {})
    shop.faults["/step"] = [slow]
    with pytest.raises(ConnectionLost) as caught:
        session.post("/step", {"env_idx": number, "action": "x"}, timeout=0.1)
    assert caught.value.slow
    session.close()


# ---- Extensions


class Announcing(Science):
    """ScienceWorld with /replay, as the bundled server has it."""

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/about":
            return 200, {"env": "sciworld", "kind": "agentgym", "goals": 60, "extensions": ["replay"]}
        if path != "/replay":
            return super().act(path, body)
        _, reset = super().act("/reset", body)
        if "error" in reset:
            return 200, reset
        steps: list[Any] = []
        for action in body["actions"]:
            steps.append(super().act("/step", {"id": body["id"], "action": action})[1])
            if steps[-1]["done"]:
                break
        return 200, {"reset": reset, "steps": steps}


def test_a_replay_is_one_request_where_the_server_announces_it() -> None:
    with serving(Announcing) as server:
        env = connected(server, "sciworld")
        assert env.extensions == {"replay"}
        task, steps = env.replay(GOAL, WINS["sciworld"][:2])
        assert task.id == "sciworld:boil:3"
        assert [step.reward for step in steps] == [0.2, 0.6]
        assert server.paths() == ["/about", "/create", "/replay"]
        assert won(env, "sciworld", 2)
        server.faults["/replay"] = [drop]
        assert env.replay(GOAL, [*WINS["sciworld"], "look around"])[1][-1].done, (
            "up to the end of the episode"
        )
        with pytest.raises(EnvError, match="after the episode was done"):
            env.step("look around")
        assert env.replay(GOAL, [])[1] == []
        server.restart()
        assert won(env, "sciworld")
        env.close()


def test_a_replay_with_an_action_to_be_grounded_goes_step_by_step() -> None:
    with serving(Announcing) as server:
        env = connected(server, "sciworld")
        actions = ["open the kitchen door", "pick up metal pot"]
        _, steps = env.replay(GOAL, actions)
        assert [(step.reward, step.grounded_action) for step in steps] == [
            (0.2, "open door to kitchen"),
            (0.6, ""),
        ]
        assert won(env, "sciworld", 2)
        plain = connected(server, "sciworld", grounding=False)
        assert [step.reward for step in plain.replay(GOAL, actions)[1]] == [0.0, 0.4]
        env.close()
        plain.close()


@pytest.mark.parametrize("answer", ["{}", '{"reset": 3, "steps": []}', "[]"])
def test_a_replays_bad_answer_is_an_error(answer: str) -> None:
    with serving(Announcing) as server:
        env = connected(server, "sciworld")
        server.faults["/replay"] = [body(answer)]
        with pytest.raises(EnvError, match="without a proper"):
            env.replay(GOAL, ["look around"])
        env.reset(GOAL)
        assert won(env, "sciworld")
        env.close()


def test_a_server_that_announces_nothing_is_replayed_step_by_step(
    server: FaultyServer, env: AgentGym, env_name: str
) -> None:
    assert env.extensions == frozenset()
    task, steps = env.replay(GOAL, [*WINS[env_name], "more"])
    assert task.opening.startswith(OPENINGS[env_name])
    assert [step.reward for step in steps] == list(REWARDS[env_name])
    assert server.paths().count("/about") == 1, "asked for once"
    assert server_about(server.url) == {"kind": "agentgym", "extensions": []}
    with pytest.raises(EnvError, match="after the episode"):
        env.fork()
    env.reset(GOAL)
    with pytest.raises(EnvError, match="HTTP 404"):
        env.fork()
    env.reset(GOAL)
    assert won(env, env_name)


RUNNING = {"textcraft": running_textcraft, "webshop": running_webshop}
FIRST = {"textcraft": ("get 1 bamboo", "get 2 bamboo"), "webshop": ("search[red]", "click[next >]")}
NEXT = {"textcraft": ("inventory", "inventory"), "webshop": ("click[< prev]", "click[back to search]")}


@pytest.mark.parametrize("name", sorted(RUNNING))
def test_the_bundled_servers_fork_and_replay(name: str) -> None:
    with RUNNING[name]() as base_url:
        assert {"fork", "replay"} <= set(server_about(base_url)["extensions"])
        env = make_environment(name, base_url)
        task = env.reset(GOAL)
        results = [env.step(action) for action in FIRST[name]]
        fork = env.fork()
        one = [fork.step(action) for action in NEXT[name]]
        assert fork.fork().step(NEXT[name][-1]) == one[-1], "a fork of a fork, in the same state"
        other = env.step(FIRST[name][0])
        assert [env.step(action) for action in NEXT[name]] != one or name == "webshop"
        assert env.replay(GOAL, FIRST[name]) == (task, results)
        assert [env.step(action) for action in NEXT[name]] == one
        assert env.replay(GOAL, [*FIRST[name], FIRST[name][0]])[1][-1] == other
        fork.close()
        env.close()


def test_a_fork_of_a_lost_session_is_replayed_first() -> None:
    with running_textcraft() as base_url:
        env = make_environment("textcraft", base_url)
        env.reset(GOAL)
        env.step("get 3 bamboo")
        http = HttpSession(base_url)
        http.post("/close", {"id": 0})
        http.close()
        fork = env.fork()
        assert fork.step("inventory").observation == "Inventory: [bamboo] (3) "
        fork.close()
        env.close()


def test_forks_use_connections_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[HttpSession] = []
    another = HttpSession.another

    def counted(self: HttpSession) -> HttpSession:
        opened.append(another(self))
        return opened[-1]

    monkeypatch.setattr(HttpSession, "another", counted)
    with running_textcraft() as base_url:
        env = make_environment("textcraft", base_url)
        env.reset(GOAL)
        for number in range(1, 6):
            assert env.step("get 1 bamboo").observation == "Got 1 bamboo"
            fork = env.fork()
            both = fork.fork()
            for one in (fork, both):
                assert one.step("inventory").observation == f"Inventory: [bamboo] ({number}) "
            both.close()
            fork.close()
        used = {id(session) for session in opened if session.is_open}
        assert len(used) == 2
        fork.reset(GOAL)
        assert fork.step("inventory").observation == "Inventory: You are not carrying anything."
        assert env.step("inventory").observation == "Inventory: [bamboo] (5) "
        fork.close()
        env.close()
        assert not any(session.is_open for session in opened)


# ---- Who answers there


def test_make_environment_finds_the_server(server: FaultyServer, env_name: str) -> None:
    env = make_environment(env_name, server.url + "/")
    env.reset(GOAL)
    assert won(env, env_name)
    env.close()


@pytest.mark.parametrize("wanted", ["babyai", "sciworld", "textcraft", "webshop"])
def test_another_environments_server_is_bad_input(server: FaultyServer, env_name: str, wanted: str) -> None:
    if wanted == env_name:
        pytest.skip("it is the right one")
    with pytest.raises(InputError, match=f"{server.url} (serves|is) no {env_spec(wanted).title}") as caught:
        make_environment(wanted, server.url)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("answer", ["[]", '{"kind": 3, "extensions": []}', '{"kind": "x"}', "<html>"])
def test_what_says_nothing_of_itself_is_bad_input(science: FaultyServer, answer: str) -> None:
    science.faults["/about"] = [body(answer)] * 20
    with pytest.raises(InputError, match=science.url):
        server_about(science.url)
