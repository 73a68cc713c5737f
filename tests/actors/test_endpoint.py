"""The endpoint actor against a real socket: samples, quirks of servers, retries, errors; and the scripted policy."""

from __future__ import annotations

import random
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from mcts_utils import patience
from mcts_utils.actors.endpoint import ATTEMPTS, EndpointActor
from mcts_utils.actors.factory import make_actor
from mcts_utils.config import settings_from_env
from mcts_utils.patience import retry_after
from mcts_utils.prompts import acting_messages, action_of, judge_messages
from mcts_utils.replies import parse_verdict
from mcts_utils.servers.mock_llm.endpoint import MODEL, Behaviour, ChatServer, running_chat
from mcts_utils.servers.textcraft.world import Session, load_world
from mcts_utils.types import ActorError, ContextOverflow, EndpointGone, InputError, Message, Step, Task
from tests.helpers.scripted_actor import ScriptedActor

ASK = [Message("system", "s"), Message("user", "u")]
KEY = "sk-very-secret-1234567890"


def echo(messages: list[dict], rng: random.Random) -> str:
    """A policy: the last turn and a number."""
    return f"{messages[-1]['content']} {rng.randrange(10**6)}"


def connect(
    server: ChatServer, waits: list[float] | None = None, concurrency: int = 8, **options
) -> EndpointActor:
    """An actor of the server; its back-off pauses go into `waits` instead of taking time."""
    base_url = options.pop("base_url", server.base_url)
    pauses = waits if waits is not None else []
    return EndpointActor(
        base_url, KEY, options.pop("model", MODEL), options.pop("max_tokens", 64), concurrency,
        rng=random.Random(0), sleep=pauses.append,
    )  # fmt: skip


@pytest.fixture
def server():
    with running_chat(policy=echo) as found:
        yield found


def test_n_samples_come_from_one_request(server):
    actor = connect(server)
    samples = actor.sample(ASK, n=4, temperature=1.0, seed=5)
    assert len({s.text for s in samples}) == 4
    (body,) = server.requests
    assert (body["n"], body["seed"], body["max_tokens"], body["temperature"]) == (4, 5, 64, 1.0)
    assert body["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    stats = actor.stats()
    assert stats["calls"] == 1
    assert stats["prompt_tokens"] == sum(s.prompt_tokens for s in samples) > 0
    assert stats["completion_tokens"] == sum(s.completion_tokens for s in samples) > 0
    actor.close()


def test_greedy_copies_are_asked_for_once(server):
    actor = connect(server)
    samples = actor.sample(ASK, n=3, temperature=0)
    assert len(server.requests) == 1 and "n" not in server.requests[0]
    assert len(samples) == 3 and len({s.text for s in samples}) == 1
    assert sum(s.completion_tokens for s in samples) == actor.stats()["completion_tokens"]


def test_server_that_ignores_n_is_learned_once(server):
    server.behaviour = replace(server.behaviour, ignore_n=True)
    actor = connect(server)
    first = actor.sample(ASK, n=4, seed=7)
    assert len(first) == len({s.text for s in first}) == 4
    assert [body.get("n") for body in server.requests] == [4, None, None, None]
    assert len({body["seed"] for body in server.requests}) == 4
    server.requests.clear()
    assert len(actor.sample(ASK, n=4, seed=8)) == 4
    assert [body.get("n") for body in server.requests] == [None] * 4


def test_server_that_refuses_n_is_asked_one_by_one(server):
    server.behaviour = replace(server.behaviour, refuse=("n",))
    actor = connect(server)
    assert len(actor.sample(ASK, n=3)) == 3
    assert [body.get("n") for body in server.requests] == [3, None, None, None]


def test_the_rest_is_asked_for_concurrently():
    """Each of the three further requests is answered only once all three are there."""
    together = threading.Barrier(3)
    calls = iter(range(100))

    def policy(messages, rng):
        if next(calls) > 0:
            together.wait(timeout=20)
        return "x"

    with running_chat(Behaviour(ignore_n=True), policy) as server:
        assert len(connect(server).sample(ASK, n=4)) == 4


def test_concurrency_is_reached_and_not_passed():
    together = threading.Barrier(4)

    def policy(messages, rng):
        together.wait(timeout=20)
        return "x"

    with running_chat(Behaviour(slots=16), policy) as server, ThreadPoolExecutor(12) as pool:
        actor = connect(server, concurrency=4)
        assert len(list(pool.map(lambda _: actor.sample(ASK), range(12)))) == 12
        assert actor.stats()["max_in_flight"] == 4
        assert server.stats()["max_busy"] == 4
        assert actor.stats()["busy_s"] > 0


def test_seed_that_is_refused_is_left_out_from_then_on(server):
    server.behaviour = replace(server.behaviour, refuse=("seed",))
    actor = connect(server)
    assert actor.sample(ASK, seed=1)[0].text
    assert actor.sample(ASK, seed=2)[0].text
    assert ["seed" in body for body in server.requests] == [True, False, False]


def test_max_completion_tokens_is_used_where_max_tokens_is_refused(server):
    actor = connect(server, max_tokens=9)
    server.behaviour = replace(server.behaviour, refuse=("max_tokens",))
    assert actor.sample(ASK)[0].text and actor.sample(ASK)[0].text
    assert [body.get("max_completion_tokens") for body in server.requests] == [None, 9, 9]


def test_length_is_truncated_and_empty_content_copes(server):
    server.policy = lambda messages, rng: "a" * 100
    assert connect(server, max_tokens=5).sample(ASK)[0].truncated
    assert not connect(server, max_tokens=50).sample(ASK)[0].truncated
    server.policy = lambda messages, rng: ""
    assert connect(server).sample(ASK)[0].text == ""


@pytest.mark.parametrize("fail", ["429", "500", "503", "drop"])
def test_passing_failures_are_retried(server, fail):
    waits: list[float] = []
    actor = connect(server, waits)
    server.behaviour = replace(server.behaviour, fail=fail, fail_every=2)
    assert [actor.sample(ASK)[0].text.split()[0] for _ in range(3)] == ["u"] * 3
    assert len(waits) == 2 and len(server.requests) == 5


def test_lasting_failure_is_raised_after_bounded_growing_waits(server):
    waits: list[float] = []
    actor = connect(server, waits)
    server.behaviour = replace(server.behaviour, fail="503", fail_every=1)
    with pytest.raises(ActorError) as caught:
        actor.sample(ASK)
    assert len(server.requests) == ATTEMPTS and len(waits) == ATTEMPTS - 1
    assert all(0.25 * 2**i <= wait <= 0.5 * 2**i for i, wait in enumerate(waits))
    message = str(caught.value)
    assert server.base_url in message and MODEL in message and "503" in message and "\n" not in message


def test_retry_after_is_honoured(server):
    waits: list[float] = []
    actor = connect(server, waits)
    server.behaviour = replace(server.behaviour, fail="429", fail_every=2, retry_after="7")
    actor.sample(ASK)
    actor.sample(ASK)
    assert waits == [7.0]
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    assert retry_after({"retry-after": "soon"}) is None and retry_after({}) is None


def test_other_refusals_are_not_retried(server):
    waits: list[float] = []
    actor = connect(server, waits, base_url=server.base_url + "/nowhere")
    with pytest.raises(ActorError, match="404"):
        actor.sample(ASK)
    assert not waits


def test_context_overflow_is_its_own_error(server):
    server.behaviour = replace(server.behaviour, context=50)
    actor = connect(server)
    with pytest.raises(ContextOverflow, match="maximum context length"):
        actor.sample([Message("user", "long " * 100)], n=4)
    assert actor.sample(ASK, n=4)
    assert len(server.requests) == 2  # and n was not blamed for it


def test_the_key_is_in_no_message(server):
    server.behaviour = replace(server.behaviour, api_key="another")  # the server repeats the key it refuses
    actor = connect(server)
    with pytest.raises(EndpointGone, match="401") as caught:  # the stage ends; every other request would fail
        actor.sample(ASK)
    assert KEY not in str(caught.value)
    with pytest.raises(InputError, match="OPENAI_API_KEY") as refused:
        actor.check()
    assert KEY not in str(refused.value)


def environ(base_url: str, **more: str) -> dict[str, str]:
    return {
        "OPENAI_BASE_URL": base_url,
        "MODEL_NAME": MODEL,
        "OPENAI_API_KEY": KEY,
        "TASK": "textcraft",
        **more,
    }


def test_make_actor_talks_to_the_endpoint_of_the_settings(server):
    actor = make_actor(settings_from_env(environ(server.base_url, MAX_TOKEN_LENGTH="9", CONCURRENCY="3")))
    assert actor.sample(ASK)[0].text.startswith("u ")
    assert server.requests[-1]["max_tokens"] == 9
    actor.close()


def test_dead_endpoint_is_one_line_naming_it():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(InputError, match="OPENAI_BASE_URL") as caught:
            make_actor(settings_from_env(environ(base_url)))
    assert base_url in str(caught.value) and "\n" not in str(caught.value) and KEY not in str(caught.value)


def test_wrong_path_and_missing_variables_are_named(server):
    with pytest.raises(InputError, match="OPENAI_BASE_URL"):
        make_actor(settings_from_env(environ(server.base_url + "/x")))
    with pytest.raises(InputError, match="MODEL_NAME"):
        make_actor(settings_from_env(environ(server.base_url, MODEL_NAME="")))
    with pytest.raises(InputError, match="MODEL_DIR"):
        make_actor(settings_from_env({"MODEL_NAME": "m", "TASK": "textcraft"}))


def test_closed_actor_stops_retrying(server):
    actor = connect(server)
    server.behaviour = replace(server.behaviour, fail_every=1)
    actor.close()
    with pytest.raises(ActorError, match="closed"):
        actor.sample(ASK)
    assert not server.requests


def test_scripted_actor_passes_everything_on():
    seen = []

    def script(messages, n, temperature, seed):
        seen.append((list(messages), n, temperature, seed))
        return ["a"] * n

    actor = ScriptedActor(script)
    assert [s.text for s in actor.sample(ASK, 2, 0.5, 3)] == ["a", "a"]
    assert seen == [(ASK, 2, 0.5, 3)] and actor.stats()["calls"] == 1
    actor.close()


def play(actor, index: int, turns: int = 40) -> tuple[Task, list[Step]]:
    """One goal with the actor, greedy."""
    world = load_world()
    goal = world.goals[index]
    session = Session(world, goal)
    steps: list[Step] = []
    task = Task("textcraft", index, goal, world.opening(goal))
    for _ in range(turns):
        reply = actor.sample(acting_messages(task, steps, "full"), temperature=0)[0].text
        observation, reward, done = session.step(action_of(reply))
        steps.append(Step(reply, action_of(reply), observation, float(reward), done))
        if done:
            break
    return task, steps


def test_the_expert_solves_and_judges_over_the_socket():
    indices = range(0, len(load_world().goals), 40)
    with running_chat() as server:
        actor = connect(server, max_tokens=200)
        for index in indices:
            task, steps = play(actor, index)
            assert steps[-1].reward == 1.0, task.id
        labels = []
        for step in (
            steps[0],
            Step("", "get 1 moon", "Could not find moon", 0.0),
            Step("", "inventory", "Inventory: ", 0.0),
        ):
            answer = actor.sample(judge_messages(task, [], step, "full"), temperature=0)[0].text
            labels.append(parse_verdict(answer)[0])
        assert labels == ["good", "bad", "uncertain"]


def test_the_noisy_expert_slips():
    with running_chat(Behaviour(noise=0.6)) as server:
        actor = connect(server, max_tokens=200)
        refused = [
            s
            for i in range(0, 200, 20)
            for s in play(actor, i, 10)[1]
            if s.observation.startswith("Could not")
        ]
    assert refused


@pytest.fixture
def clock(monkeypatch):
    """The waits of an actor, which take no time; the clock of the patience goes on by them."""
    waits: list[float] = []
    real = patience.now
    monkeypatch.setattr(patience, "now", lambda: real() + sum(waits))
    return waits


def patient(url: str, waits: list[float], seconds: float = 100.0) -> EndpointActor:
    return EndpointActor(url, KEY, MODEL, 64, 8, random.Random(0), waits.append, patience=seconds)


def test_an_endpoint_that_restarts_is_waited_for(clock, capsys):
    with running_chat(policy=echo) as server:
        url = server.base_url

    class Restarting(list):
        """The endpoint is back after a minute."""

        def append(self, seconds: float) -> None:
            clock.append(seconds)
            if sum(clock) > 60 and not back:
                back.append(ChatServer(int(url.split(":")[-1].split("/")[0]), policy=echo))
                back[0].start()

    back: list[ChatServer] = []
    try:
        assert EndpointActor(url, KEY, MODEL, 64, 8, sleep=Restarting().append, patience=100.0).sample(ASK)
    finally:
        for restarted in back:
            restarted.close()
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in told if "ENDPOINT_PATIENCE=100 s" in line] == [
        "waiting for the endpoint http"
    ]
    assert told[-1] == f"the endpoint {url} answers again"


def test_an_endpoint_that_is_gone_ends_the_wait_and_says_for_how_long(clock):
    with running_chat(policy=echo) as server:
        url = server.base_url
    actor = patient(url, clock)
    with pytest.raises(EndpointGone, match=r"has not answered for 1\d\d s \(ENDPOINT_PATIENCE\): "):
        actor.sample(ASK)
    assert 100 <= sum(clock) < 110
    with pytest.raises(EndpointGone):
        actor.sample(ASK)
    assert sum(clock) < 110, "the next request does not wait once more"


def test_a_dead_endpoint_is_told_at_once_before_a_run(clock):
    with running_chat(policy=echo) as server:
        url = server.base_url
    with pytest.raises(InputError, match=f"OPENAI_BASE_URL={url} cannot be reached"):
        patient(url, clock).check()
    assert sum(clock) < 5


def test_one_request_that_always_fails_does_not_use_up_the_patience(clock):
    with running_chat(Behaviour(fail_every=1, fail="500"), policy=echo) as server:
        with pytest.raises(ActorError) as caught:
            patient(server.base_url, clock).sample(ASK)
    assert not isinstance(caught.value, EndpointGone)
    assert sum(clock) < 40
