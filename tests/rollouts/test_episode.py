"""Sessions, steps, replay, episodes, and the search's explorer, on a small environment in memory and on the server."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Barrier, Event

import pytest

from mcts_utils.config import Settings
from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import REVISION_THOUGHTS, is_signal_step, reply_text
from mcts_utils.rollouts.counters import Counters
from mcts_utils.rollouts.episode import derive_seed, replay, run_episode, take_step
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.search.simulator import Diverged, TaskSimulator
from mcts_utils.types import (
    Actor,
    ActorError,
    ContextOverflow,
    EnvError,
    Environment,
    Message,
    Sample,
    Step,
    StepResult,
    Stopped,
    Task,
)
from tests.helpers.noisy_player import NoisyPlayer


class Stairs(Environment):
    """An environment of `height` steps `up`; `fall` is a disaster. Counts what happens to it."""

    opened: list[Stairs] = []

    def __init__(self, height: int = 3) -> None:
        self.height, self.level, self.resets, self.steps, self.closed = height, 0, 0, 0, 0
        self.opened.append(self)

    def reset(self, index: int) -> Task:
        self.level, self.resets = 0, self.resets + 1
        return Task("textcraft", index, f"stairs:{index}", f"Goal: climb {index}.")

    def step(self, action: str) -> StepResult:
        self.steps += 1
        if action == "fall":
            return StepResult("You fell.", -1.0, True, disaster=True)
        self.level += action == "up"
        return StepResult(f"level {self.level}", self.level / self.height, self.level == self.height)

    def close(self) -> None:
        self.closed += 1


class Scripted(Actor):
    """An actor that gives its actions by the number of steps taken; remembers what it saw."""

    def __init__(self, *actions: str) -> None:
        self.actions = actions
        self.seen: list[list[Message]] = []
        self.seeds: list[int | None] = []

    def sample(self, messages: Sequence[Message], n=1, temperature=1.0, seed=None) -> list[Sample]:
        self.seen.append(list(messages))
        self.seeds.append(seed)
        taken = len(messages) // 2 - 1
        return [Sample(f"  {reply_text('t', self.actions[taken % len(self.actions)])}\n", 7, 3)] * n


@pytest.fixture(autouse=True)
def _fresh():
    Stairs.opened = []


def up(n: int) -> list[Step]:
    return [Step(reply_text("t", "up"), "up", f"level {i + 1}", (i + 1) / 3, i == 2) for i in range(n)]


def episode(actor, env=None, **changes):
    options = {"prompt": "brief", "max_steps": 9, "temperature": 1.0, "seed": 3, **changes}
    return run_episode(actor, env or Stairs(), 5, **options)


def test_an_episode_ends_with_done():
    actor = Scripted("up")
    found = episode(actor)
    assert (found.end, found.reward, list(found.steps)) == ("done", 1.0, up(3))
    assert [m.role for m in actor.seen[-1]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert actor.seen[-1][-1].content == "level 2"


def test_an_episode_ends_at_its_limit_of_new_steps():
    found = episode(Scripted("look"), max_steps=4, prefix=up(2))
    assert (found.end, len(found.steps), found.reward) == ("max_steps", 6, pytest.approx(2 / 3))


def test_a_disaster_ends_with_no_reward():
    found = episode(Scripted("up", "fall"))
    assert (found.end, found.reward, found.steps[-1].reward) == ("disaster", 0.0, 0.0)


def test_a_full_context_is_an_end_and_other_failures_are_not():
    class Tired(Scripted):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            if len(messages) > 2:
                raise self.error
            return super().sample(messages, n, temperature, seed)

    actor = Tired("up")
    actor.error = ContextOverflow("too long")
    assert (episode(actor).end, len(episode(actor).steps)) == ("context", 1)
    actor.error = ActorError("gone")
    with pytest.raises(ActorError, match="gone"):
        episode(actor)


def test_wait_is_no_environment_step_and_keeps_the_score():
    env = Stairs()
    found = episode(Scripted("up", "wait", "up", "up"), env)
    assert env.steps == 3
    waited = found.steps[1]
    assert (waited.action, waited.observation, waited.reward, waited.done) == (
        "wait",
        "ok.",
        pytest.approx(1 / 3),
        False,
    )
    assert found.reward == 1


class Sands(Stairs):
    """Stairs in a world with a command `wait` of its own, as ScienceWorld's."""

    waits = True


def test_where_wait_is_a_command_only_a_revision_signal_is_kept_from_the_world():
    replies = [
        reply_text("Time must pass.", "wait"),
        reply_text(REVISION_THOUGHTS[3], "wait"),
        reply_text("Up.", "up"),
    ]
    env = Sands()
    _, steps = replay(env, 0, replies)
    assert env.steps == 2
    assert [is_signal_step(step) for step in steps] == [False, True, False]
    assert steps[0].observation != "ok."
    # Two paths that differ in nothing else are two paths.
    run = Replayer(SessionPool(Sands), 0, "stairs:0")
    assert run(replies[:1])[0].observation != run(replies[1:2])[0].observation


def test_the_prefix_is_replayed_and_comes_back_as_it_is_now():
    stale = [Step(reply_text("t", "up"), "up", "something else", 0.9)]
    found = episode(Scripted("up"), prefix=stale)
    assert found.steps[0].observation == "level 1"
    assert found.steps[0].reply == stale[0].reply
    assert found.end == "done"


def test_nothing_is_asked_after_a_prefix_that_ends_the_episode():
    actor = Scripted("up")
    assert episode(actor, prefix=up(3)).end == "done"
    assert actor.seen == []


def test_replay_stops_at_done():
    env = Stairs()
    task, steps = replay(env, 5, [reply_text("t", "up")] * 5)
    assert (task.id, steps, env.steps) == ("stairs:5", up(3), 3)


def test_the_same_seed_asks_for_the_same_samples():
    first, second, third = Scripted("look"), Scripted("look"), Scripted("look")
    episode(first), episode(second), episode(third, seed=4)
    assert first.seeds == second.seeds
    assert len(set(first.seeds)) == len(first.seeds) == 9
    assert not set(first.seeds) & set(third.seeds)
    greedy = Scripted("up")
    episode(greedy, seed=None)
    assert set(greedy.seeds) == {None}


def test_seeds_do_not_collide_in_a_search():
    seeds = {derive_seed(0, 7, i, r, s) for i in range(32) for r in range(-1, 8) for s in range(20)}
    assert len(seeds) == 32 * 9 * 20
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_stopped_episode_raises():
    with pytest.raises(Stopped):
        episode(Scripted("up"), stopped=lambda: True)


def test_sessions_are_used_again_and_dropped_when_they_raise():
    pool = SessionPool(Stairs)
    with pool.session() as first:
        pass
    with pool.session() as again, pool.session() as other:
        assert again is first
        assert other is not first
    with pytest.raises(EnvError), pool.session() as broken:
        raise EnvError("gone")
    assert broken.closed == 1
    pool.close()
    assert [env.closed for env in Stairs.opened] == [1, 1]
    assert len(Stairs.opened) == 2


def test_a_session_in_use_is_closed_when_it_comes_back_to_a_closed_pool():
    pool = SessionPool(Stairs)
    with pool.session() as env:
        pool.close()
        assert env.closed == 0
    assert env.closed == 1


def simulator(actor, pool, threads, stopped=lambda: False, meter=None, task=None, **changes):
    task = task or Task("textcraft", 5, "stairs:5", "Goal: climb 5.")
    settings = Settings(prompt="brief", **changes)
    return TaskSimulator(task, settings, actor, pool, threads, meter or Counters(), stopped)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as executor:
        yield executor


def test_the_session_of_the_chosen_child_goes_on_as_the_first_rollout(threads):
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Scripted("up"), pool, threads).iteration(0) as explorer:
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

    class Together(Scripted):
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
        with simulator(Scripted("look"), pool, threads, max_depth=5).iteration(0) as explorer:
            assert [len(trail) for trail in explorer.rollouts(up(2), 2)] == [3, 3]


def test_a_beginning_that_does_not_replay_is_told(threads):
    path = [Step(reply_text("t", "up"), "up", "level 1", 0.9)]
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Scripted("up"), pool, threads).iteration(0) as explorer:
            assert explorer.rollouts(path, 2) == [None, None]
        with (
            pytest.raises(Diverged),
            simulator(Scripted("up"), pool, threads).iteration(0) as explorer,
        ):
            explorer.execute(path, reply_text("t", "up"))


def test_another_goal_under_the_same_index_is_an_error(threads):
    other = Task("textcraft", 5, "stairs:other", "")
    with (
        closing(SessionPool(Stairs)) as pool,
        pytest.raises(EnvError, match="stairs:other"),
        simulator(Scripted("up"), pool, threads, task=other).iteration(0) as explorer,
    ):
        explorer.rollouts([], 1)


def test_one_failing_rollout_stops_the_others_and_closes_their_sessions(threads):
    started, failed = Barrier(4), Event()

    class Failing(Scripted):
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
        simulator(Failing(), pool, threads, max_depth=10**9).iteration(0) as explorer,
    ):
        explorer.rollouts([], 4)  # would go on for ever if the three were not stopped
    pool.close()
    assert [env.closed for env in Stairs.opened] == [1] * 4


def test_stopping_ends_endless_rollouts(threads):
    stop = Event()

    class Stopping(Scripted):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            stop.set()
            return [Sample(reply_text("t", "look"))]

    with (
        closing(SessionPool(Stairs)) as pool,
        pytest.raises(Stopped),
        simulator(Stopping(), pool, threads, stop.is_set, max_depth=10**9).iteration(0) as explorer,
    ):
        explorer.rollouts([], 4)


def test_the_meter_shows_requests_in_flight(threads):
    meter = Counters()

    class Looking(Scripted):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            seen.append(meter.counts()["in_flight"])
            return super().sample(messages, n, temperature, seed)

    seen: list[int] = []
    with closing(SessionPool(Stairs)) as pool:
        with simulator(Looking("up"), pool, threads, meter=meter).iteration(0) as explorer:
            explorer.sample([], 4)
    assert seen == [1]
    assert "in_flight" not in meter.counts()


def test_turns_without_an_action_line_are_counted_and_sent_whole(threads):
    class Chatty(Scripted):
        def sample(self, messages, n=1, temperature=1.0, seed=None):
            return [Sample(" up "), Sample("Thought: x\nAction: up")]

    with closing(SessionPool(Stairs)) as pool:
        with simulator(Chatty(), pool, threads).iteration(0) as explorer:
            assert [action for _, action in explorer.sample([], 2)] == ["up", "up"]
            assert explorer.counts()["invalid"] == 1


def test_replay_is_exact_on_the_real_server(textcraft_url):
    with closing(SessionPool(lambda: make_environment("textcraft", textcraft_url))) as pool:
        with pool.session() as env:
            played = run_episode(
                NoisyPlayer(0.5), env, 200, prompt="brief", max_steps=12, temperature=1.0, seed=1
            )
            task, steps = replay(env, 200, [step.reply for step in played.steps])
            assert task == played.task
            assert tuple(steps) == played.steps
            assert len(steps) > 3
            env.reset(200)
            assert take_step(env, "no action here", 0.0).observation == "Could not execute no action here"
