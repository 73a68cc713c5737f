"""Servers that are away for a while: busy, restarting, behind a proxy, or gone for good."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mcts_utils import patience
from mcts_utils.envs import make_environment
from mcts_utils.envs.client import AgentGym
from mcts_utils.envs.errors import ServerGone
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs import env_spec
from mcts_utils.types import EnvError
from tests.helpers.faulty_server import Fault, FaultyServer, body, drop, drop_unheard, serving, slow, status
from tests.helpers.toy_worlds import Played, Science, Shop, Worlds

WIN = ("open door to kitchen", "pick up metal pot", "boil water in metal pot")
AWAY = [
    *(status(code) for code in (408, 429, 502, 503, 504, 520)),
    *(body(text) for text in ("<html>Bad gateway</html>", "", "null and more")),
    drop,
    drop_unheard,
]


@pytest.fixture
def science() -> Iterator[FaultyServer]:
    with serving(Science) as server:
        yield server


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The waits, which take no time; the clock goes on by them alone, so that a busy machine makes none shorter."""
    waits: list[float] = []
    start = patience.now()
    monkeypatch.setattr(patience, "pause", waits.append)
    monkeypatch.setattr(patience, "now", lambda: start + sum(waits))
    return waits


def open_sessions(server: FaultyServer) -> dict[int, Played]:
    """The sessions of a toy world."""
    assert isinstance(server.world, Worlds)
    return server.world.open


def patient(
    server: FaultyServer, patience: float = 100.0, timeout: float = 30.0, env: str = "sciworld"
) -> AgentGym:
    return AgentGym(HttpSession(server.url, timeout=timeout, patience=patience), env_spec(env))


@pytest.mark.parametrize("path", ["/create", "/reset", "/step"])
@pytest.mark.parametrize("fault", AWAY)
def test_an_episode_goes_on_when_the_server_is_back(
    science: FaultyServer, clock: list[float], path: str, fault: Fault
) -> None:
    science.faults[path] = [None, fault, fault, fault, fault, fault] if path == "/step" else [fault] * 5
    env = patient(science)
    env.reset(3)
    assert [env.step(action).reward for action in WIN] == [0.2, 0.6, 1.0]
    env.close()
    if path == "/step" and fault not in (drop, drop_unheard):
        assert not open_sessions(science), "the sessions given up are closed"
    assert 0.5 < sum(clock) < 60


@pytest.mark.parametrize("fault", AWAY)
def test_what_only_reads_is_sent_again(science: FaultyServer, clock: list[float], fault: Fault) -> None:
    science.faults["/"] = [fault] * 2
    science.faults["/about"] = [fault] * 2
    env = make_environment("sciworld", science.url)
    assert env.extensions == frozenset()
    env.close()


def test_a_server_may_say_how_long(science: FaultyServer, clock: list[float]) -> None:
    def busy(handler, result) -> None:
        handler.send_response(503)
        handler.send_header("Retry-After", "17")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    science.faults["/reset"] = [busy]
    patient(science).reset(3)
    assert max(clock) == 17


def test_a_server_that_answers_nobody_is_gone_after_the_patience(
    science: FaultyServer, clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    env, other = patient(science), patient(science)
    env.reset(3)
    other.reset(3)
    for path in ("/create", "/step", "/observation"):
        science.faults[path] = [status(503)] * 1000
    with pytest.raises(ServerGone, match=r"has not answered for 1\d\d s \(SERVER_PATIENCE\).*HTTP 503"):
        env.step(WIN[0])
    assert 100 <= sum(clock) < 110
    with pytest.raises(ServerGone):
        other.step(WIN[0])
    assert sum(clock) < 110, "the others do not wait once more"
    lines = capsys.readouterr().err.splitlines()
    assert len([line for line in lines if "SERVER_PATIENCE=100 s" in line]) == 1
    science.faults.clear()
    other.reset(3)
    assert "answers again" in capsys.readouterr().err


def test_an_action_that_breaks_the_server_is_a_failure_of_its_episode(
    science: FaultyServer, clock: list[float]
) -> None:
    env = patient(science, patience=1e9)
    env.reset(3)
    science.faults["/step"] = [drop] * 1000
    with pytest.raises(EnvError) as caught:
        env.step("crash")
    assert not isinstance(caught.value, ServerGone)
    assert science.actions().count("crash") == 8


@pytest.mark.parametrize("ids", [(0, 1), (2**53 - 1, 2**52)])  # counted, and random ones
def test_a_session_given_up_after_a_late_answer_is_closed(
    science: FaultyServer, ids: tuple[int, int]
) -> None:
    env, world = patient(science, timeout=0.2), science.world
    assert isinstance(world, Science)
    world.created = ids[0]
    env.reset(3)
    world.created = ids[1]
    env.step(WIN[0])
    science.faults["/step"] = [slow]
    env.step(WIN[1])
    assert sorted(world.open) == [ids[1]], "its action was executed, as it was in the new session"
    env.close()
    assert not world.open


def test_nobody_elses_session_is_closed(science: FaultyServer, clock: list[float]) -> None:
    env = patient(science)
    env.reset(3)
    science.faults["/step"] = [status(503)]
    science.faults["/create"] = [status(503), lambda handler, result: restart(handler)]

    def restart(handler) -> None:
        """The server is a new one, and the old id is another client's."""
        science.world = Science()
        science.world.act("/create", {})
        science.world.act("/reset", {"id": 0, "data_idx": 1})
        science.world.act("/step", {"id": 0, "action": "look at stove"})
        handler.answer(503, b"")

    env.step(WIN[0])
    env.close()
    assert sorted(open_sessions(science)) == [0]


def test_a_shop_that_is_away_keeps_its_goals(clock: list[float]) -> None:
    with serving(Shop) as shop:
        env = patient(shop, env="webshop")
        opening = env.reset(3).opening
        shop.faults["/step"] = [status(503), status(502)]
        env.step("search[lamp]")
        assert env.step("click[b0123456789]").reward == 0.0
        assert env.reset(3).opening == opening
        assert shop.paths().count("/create") == 1
        env.close()
