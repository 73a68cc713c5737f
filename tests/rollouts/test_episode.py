"""Sessions, steps, replay and episodes, on a small environment in memory and on the server."""

from __future__ import annotations

from contextlib import closing

import pytest

from mcts_utils.envs import make_environment
from mcts_utils.envs.session_pool import SessionPool
from mcts_utils.prompts import REVISION_THOUGHTS, is_signal_step, reply_text
from mcts_utils.rollouts.episode import derive_seed, replay, run_episode, take_step
from mcts_utils.rollouts.replayer import Replayer
from mcts_utils.types import ActorError, ContextOverflow, EnvError, Step, Stopped
from tests.helpers.noisy_player import NoisyPlayer
from tests.helpers.stairs import Climber, Stairs, up


@pytest.fixture(autouse=True)
def _fresh():
    Stairs.opened = []


def episode(actor, env=None, **changes):
    options = {"prompt": "brief", "max_steps": 9, "temperature": 1.0, "seed": 3, **changes}
    return run_episode(actor, env or Stairs(), 5, **options)


def test_an_episode_ends_with_done():
    actor = Climber("up")
    found = episode(actor)
    assert (found.end, found.reward, list(found.steps)) == ("done", 1.0, up(3))
    assert [m.role for m in actor.seen[-1]] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert actor.seen[-1][-1].content == "level 2"


def test_an_episode_ends_at_its_limit_of_new_steps():
    found = episode(Climber("look"), max_steps=4, prefix=up(2))
    assert (found.end, len(found.steps), found.reward) == ("max_steps", 6, pytest.approx(2 / 3))


def test_a_disaster_ends_with_no_reward():
    found = episode(Climber("up", "fall"))
    assert (found.end, found.reward, found.steps[-1].reward) == ("disaster", 0.0, 0.0)


def test_a_full_context_is_an_end_and_other_failures_are_not():
    class Tired(Climber):
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
    found = episode(Climber("up", "wait", "up", "up"), env)
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
    found = episode(Climber("up"), prefix=stale)
    assert found.steps[0].observation == "level 1"
    assert found.steps[0].reply == stale[0].reply
    assert found.end == "done"


def test_nothing_is_asked_after_a_prefix_that_ends_the_episode():
    actor = Climber("up")
    assert episode(actor, prefix=up(3)).end == "done"
    assert actor.seen == []


def test_replay_stops_at_done():
    env = Stairs()
    task, steps = replay(env, 5, [reply_text("t", "up")] * 5)
    assert (task.id, steps, env.steps) == ("stairs:5", up(3), 3)


def test_the_same_seed_asks_for_the_same_samples():
    first, second, third = Climber("look"), Climber("look"), Climber("look")
    episode(first), episode(second), episode(third, seed=4)
    assert first.seeds == second.seeds
    assert len(set(first.seeds)) == len(first.seeds) == 9
    assert not set(first.seeds) & set(third.seeds)
    greedy = Climber("up")
    episode(greedy, seed=None)
    assert set(greedy.seeds) == {None}


def test_seeds_do_not_collide_in_a_search():
    seeds = {derive_seed(0, 7, i, r, s) for i in range(32) for r in range(-1, 8) for s in range(20)}
    assert len(seeds) == 32 * 9 * 20
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_stopped_episode_raises():
    with pytest.raises(Stopped):
        episode(Climber("up"), stopped=lambda: True)


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
