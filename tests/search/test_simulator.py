"""Actor and environment as the search sees them: parallel rollouts, sessions, failures, counts, on stairs in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event

import pytest

from mcts_utils.config import Settings
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import reply_text
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import derive_seed
from mcts_utils.search.env_sessions import Diverged
from mcts_utils.search.simulator import TaskSimulator
from mcts_utils.types import ActorError, EnvError, Sample, Step, Stopped, Task
from tests.helpers.stairs import Climber, Stairs, up


@pytest.fixture(autouse=True)
def _fresh():
    Stairs.opened = []


def simulator(actor, pool, threads, stopped=lambda: False, counters=None, task=None, **changes):
    task = task or Task("textcraft", 5, "stairs:5", "Goal: climb 5.")
    settings = Settings(prompt="brief", **changes)
    return TaskSimulator(task, settings, actor, pool, threads, counters or Counters(), stopped)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_the_session_of_the_chosen_child_goes_on_as_the_first_rollout(threads):
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Climber("up"), pool, threads).iteration(0) as explorer:
            step = explorer.execute(up(1), reply_text("t", "up"))
            assert step == up(2)[1]
            trails = explorer.rollouts(up(2), 4)
            counts = explorer.counts()
        assert trails == [(up(3)[2],)] * 4
        # 1 + 3 resets: the first rollout needs none. 2 steps to the child, 1 on; 3 x (2 replayed + 1).
        assert counts["env_resets"] == 4
        assert counts["env_steps"] == 2 + 1 + 3 * 3
        assert (counts["calls"], counts["prompt_tokens"], counts["completion_tokens"]) == (4, 28, 12)
        assert "in_flight" not in counts


def test_rollouts_run_at_once_and_come_back_in_order(threads):
    meeting = Barrier(6)

    class Together(Climber):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            if len(messages) == 2:
                meeting.wait(timeout=30)  # breaks, and fails the test, unless all six are asked at once
            return [Sample(reply_text(str(seed), "up"))]

    with closing(SessionPool(Stairs)) as pool:
        with simulator(Together(), pool, threads, seed=1).iteration(2) as explorer:
            trails = explorer.rollouts([], 6)
    thoughts = [trail[0].reply for trail in trails]
    assert thoughts == [reply_text(str(derive_seed(1, 5, 2, k, 0)), "up") for k in range(6)]


def test_rollouts_stop_at_max_depth(threads):
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Climber("look"), pool, threads, max_depth=5).iteration(0) as explorer:
            assert [len(trail) for trail in explorer.rollouts(up(2), 2)] == [3, 3]


def test_a_beginning_that_does_not_replay_is_told(threads):
    path = [Step(reply_text("t", "up"), "up", "level 1", 0.9)]
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Climber("up"), pool, threads).iteration(0) as explorer:
            assert explorer.rollouts(path, 2) == [None, None]
        with (
            pytest.raises(Diverged),
            simulator(Climber("up"), pool, threads).iteration(0) as explorer,
        ):
            explorer.execute(path, reply_text("t", "up"))


def test_another_goal_under_the_same_index_is_an_error(threads):
    other = Task("textcraft", 5, "stairs:other", "")
    with (
        closing(SessionPool(Stairs)) as pool,
        pytest.raises(EnvError, match="stairs:other"),
        simulator(Climber("up"), pool, threads, task=other).iteration(0) as explorer,
    ):
        explorer.rollouts([], 1)


def test_one_failing_rollout_stops_the_others_and_closes_their_sessions(threads):
    started, failed = Barrier(4), Event()

    class Failing(Climber):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            if len(messages) == 2:
                if started.wait(timeout=30) == 0:
                    failed.set()
                    raise ActorError("endpoint is gone")
                failed.wait(timeout=30)
            return [Sample(reply_text("t", "look"))]

    pool = SessionPool(Stairs)
    with (
        pytest.raises(ActorError, match="gone"),
        simulator(Failing(), pool, threads, max_depth=10_000).iteration(0) as explorer,
    ):
        explorer.rollouts([], 4)  # would go on for ever if the three were not stopped
    pool.close()
    assert [env.closed for env in Stairs.opened] == [1] * 4


def test_stopping_ends_endless_rollouts(threads):
    stop = Event()

    class Stopping(Climber):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            stop.set()
            return [Sample(reply_text("t", "look"))]

    with (
        closing(SessionPool(Stairs)) as pool,
        pytest.raises(Stopped),
        simulator(Stopping(), pool, threads, stop.is_set, max_depth=10_000).iteration(0) as explorer,
    ):
        explorer.rollouts([], 4)


def test_the_meter_shows_requests_in_flight(threads):
    counters = Counters()

    class Looking(Climber):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            seen.append(counters.counts()["in_flight"])
            return super().sample(messages, n, temperature, seed)

    seen: list[int] = []
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Looking("up"), pool, threads, counters=counters).iteration(0) as explorer:
            explorer.sample([], 4)
    assert seen == [1]
    assert "in_flight" not in counters.counts()


def test_turns_without_an_action_line_are_counted_and_sent_whole(threads):
    class Chatty(Climber):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            return [Sample(" up "), Sample("Thought: x\nAction: up")]

    with closing(SessionPool(Stairs)) as pool:
        with simulator(Chatty(), pool, threads).iteration(0) as explorer:
            assert [reply.action for reply in explorer.sample([], 2)] == ["up", "up"]
            assert explorer.counts()["invalid"] == 1
