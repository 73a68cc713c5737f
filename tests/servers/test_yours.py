"""Environments of yours: sources, rewards, random state, Gymnasium, the server as the stages use it."""

from __future__ import annotations

import json
import random
import sys
from contextlib import closing, contextmanager

import gymnasium
import numpy
import pytest

from mcts_utils.config import settings_from_env
from mcts_utils.envs import make_environment, names
from mcts_utils.envs.own_server import own_server, served
from mcts_utils.envs.specs import env_spec
from mcts_utils.envs.task_set import open_task_set
from mcts_utils.prompts import system_prompt
from mcts_utils.revision.expert_plan import tasks_to_play
from mcts_utils.rollouts.steps import refuses
from mcts_utils.search.stage import SearchStage
from mcts_utils.servers.app_server import running
from mcts_utils.servers.yours.app import create_app
from mcts_utils.servers.yours.expert import Expert
from mcts_utils.servers.yours.rewards import RewardError, rule_of
from mcts_utils.servers.yours.source import SourceError, load, name_of
from mcts_utils.servers.yours.world import Session, World
from mcts_utils.storage.layout import safe_name
from mcts_utils.types import EnvError, InputError

COUNTER = "tests/helpers/broken_worlds.py:Counter"


@contextmanager
def serving(source):
    """Yield the URL of an environment that this process serves, and its name."""
    world = World(source)
    with running(create_app(world)) as url:
        yield url, world.name


# ---- sources


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("./some/my_env.py:make", "my_env:make"),
        ("my_env.py:Worlds.easy", "my_env:Worlds.easy"),
        ("my_pkg.my_env:make", "my_pkg.my_env:make"),
        ("gymnasium:GuessNumber-v0", "gymnasium:GuessNumber-v0"),
        ("gymnasium:my_pkg:ns/GuessNumber-v0", "gymnasium:my_pkg:ns/GuessNumber-v0"),
    ],
)
def test_a_source_has_a_name_that_can_name_a_folder(source, name):
    assert name_of(source) == name
    assert "/" not in safe_name(name) and ":" not in safe_name(name)
    settings = settings_from_env({"TASK": source}, names())
    assert (settings.task, settings.task_source) == (name, source)
    assert settings.public()["task_source"] == source


@pytest.mark.parametrize(
    "source", ["my_env.py:", ":make", "my env:make", "a-b:make", "my_env.py:ma ke", "x.py:1"]
)
def test_a_wrong_source_is_bad_input(source):
    with pytest.raises(InputError, match="TASK must be FILE.py:FUNCTION") as caught:
        settings_from_env({"TASK": source}, names())
    assert repr(source) in str(caught.value)


def test_a_bundled_environment_has_no_source():
    assert "task_source" not in settings_from_env({"TASK": "textcraft", "TASK_SOURCE": "x.py:y"}).public()


@pytest.mark.parametrize(
    ("text", "function", "said"),
    [
        ("make = 3", "make", "make is no function that makes an environment"),
        ("raise OSError('no disk')", "make", "OSError: no disk"),
        ("import sys; sys.exit('bye')", "make", "SystemExit: bye"),
        ("def make(:", "make", "SyntaxError: "),
    ],
)
def test_a_file_that_cannot_be_loaded_is_one_line(tmp_path, text, function, said):
    file = tmp_path / "wrong.py"
    file.write_text(text)
    with pytest.raises(SourceError, match="wrong.py:make: ") as caught:
        load(f"{file}:{function}")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_missing_is_one_line():
    with pytest.raises(
        SourceError, match="^nowhere.module:make: ModuleNotFoundError: No module named 'nowhere'$"
    ):
        load("nowhere.module:make")
    with pytest.raises(SourceError, match="^gymnasium:Nothing-v0: making it raised NameNotFound"):
        World("gymnasium:Nothing-v0")


# ---- rewards


class Stated:
    """An object with attributes."""

    def __init__(self, **stated):
        self.__dict__.update(stated)


@pytest.mark.parametrize(
    ("stated", "rewards", "scores"),
    [
        ({}, [0, 0.25, 0.5], [0, 0.25, 0.75]),
        ({"reward_of": "episode"}, [0.25, 0.25, 1], [0.25, 0.25, 1]),
        ({"reward_range": (-1, 1)}, [0, -1, 1.5], [0.5, 0, 0.75]),
        ({"reward_range": (0, 10)}, [5, 50, -100], [0.5, 1, 0]),  # what lies outside is cut
        ({"reward_range": (0, 10), "reward_of": "episode"}, [5, 10], [0.5, 1]),
        ({}, [numpy.float32(0.5), numpy.int64(0), True], [0.5, 0.5, RewardError]),
        ({}, [-0.1], [RewardError]),
        ({"reward_range": (-float("inf"), float("inf"))}, [1], [1]),  # as older Gym environments have it
        ({}, ["0.5"], [RewardError]),
        ({}, [{"solved": 1}], [RewardError]),
        (
            {"reward_range": {"solved": (0, 1), "polite": (-5, 0)}},
            [{}, {"polite": -5}, {"solved": 1}],
            [0.5, 0, 0.5],
        ),
        (
            {"reward_range": {"solved": (0, 1), "polite": (-5, 0)}, "reward_weights": {"solved": 3}},
            [{"polite": -5}, {"solved": 1}, {"polite": 5}],
            [0, 0.75, 1],
        ),
        ({"reward_range": {"solved": (0, 1)}}, [1.0], [RewardError]),
    ],
)
def test_the_score_is_the_mapped_reward(stated, rewards, scores):
    rule, totals = rule_of(Stated(**stated)), {}
    for reward, score in zip(rewards, scores, strict=True):
        if score is RewardError:
            with pytest.raises(RewardError):
                rule.score(rule.add(totals, reward))
            return
        totals = rule.add(totals, reward)
        assert rule.score(totals) == pytest.approx(score)


@pytest.mark.parametrize(
    "stated",
    [
        {"reward_of": "total"},
        {"reward_range": (1, 1)},
        {"reward_range": 5},
        {"reward_range": (0, float("inf"))},
        {"reward_range": {"a": (0, 1)}, "reward_weights": {"b": 1}},
        {"reward_range": {"a": (0, 1)}, "reward_weights": {"a": 0}},
        {"reward_range": {"a": (0, 1)}, "reward_weights": ["a"]},
    ],
)
def test_a_wrong_statement_about_rewards_is_named(stated):
    with pytest.raises(RewardError, match=list(stated)[-1]):
        rule_of(Stated(**stated))


# ---- random state

DICE = """
import random, numpy
class Dice:
    def reset(self, index):
        return f"{random.random()} {numpy.random.random()}"
    def step(self, action):
        return f"{random.random()} {numpy.random.random()}", 0, False
    def copy(self):
        return Dice()
"""


def test_the_random_state_belongs_to_the_session(tmp_path):
    (tmp_path / "dice.py").write_text(DICE)
    world = World(f"{tmp_path / 'dice.py'}:Dice")

    def rolls(session, count):
        return [session.step("roll")["observation"] for _ in range(count)]

    alone = Session(world)
    opening, first = alone.reset(3), rolls(alone, 4)
    one, two = Session(world), Session(world)
    assert one.reset(3) == opening
    two.reset(9)
    mixed = []
    for _ in range(2):
        mixed += rolls(one, 1)
        rolls(two, 3)
        random.seed(1)  # the server's own use of the generators
    twin = one.copy()
    assert rolls(twin, 2) == first[2:]
    assert [*mixed, *rolls(one, 2)] == first
    assert two.reset(3) == opening != two.reset(4)


# ---- Gymnasium


class GuessLetter(gymnasium.Env):
    """Guess a letter that the seed draws."""

    prompt = "Guess a letter from a to e."
    action_space = observation_space = gymnasium.spaces.Text(100)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.letter = "abcde"[self.np_random.integers(5)]
        return "Which letter?", {}

    def step(self, action):
        found = action == self.letter
        return ("Yes." if found else "No."), float(found), found, False, {}


class GuessPicture(GuessLetter):
    """Show pictures."""

    def step(self, action):
        return numpy.zeros(3), 0.0, False, False, {}


gymnasium.register("GuessLetter-v0", lambda **_: GuessLetter(), max_episode_steps=4, disable_env_checker=True)
gymnasium.register("GuessPicture-v0", lambda **_: GuessPicture(), disable_env_checker=True)


def test_a_gymnasium_environment_is_taken_as_it_is():
    with serving("gymnasium:GuessLetter-v0") as (url, name):
        env = make_environment(name, url)
        assert env.extensions == {"replay"}
        letters = []
        for index in (1, 2, 1):
            assert env.reset(index).opening == "Which letter?"
            letters.append(env.replay(index, list("abcdefgh"))[1])
        assert letters[0] == letters[2]
        assert all(each[-1].done and len(each) <= 4 for each in letters)  # cut off by max_episode_steps
        assert system_prompt(name, "full").startswith("Guess a letter from a to e.\nIn every turn reply with")
        env.close()


def test_an_observation_that_is_no_text_is_named():
    with serving("gymnasium:GuessPicture-v0") as (url, name):
        env = make_environment(name, url)
        env.reset(0)
        with pytest.raises(
            EnvError, match=r"step\('a'\) returned ndarray array.* as its observation, not text"
        ):
            env.step("a")


# ---- the server as the stages use it


def test_the_client_forks_replays_and_knows_refusals():
    with serving(COUNTER) as (url, name):
        tasks = open_task_set(settings_from_env({"TASK": COUNTER, "ENV_SERVER_BASE": url}))
        assert tasks.kind().startswith("agent-r-yours-fork-")
        assert tasks.test_ids() == {4, 5}
        env = tasks.environment()
        task = env.reset(1)
        assert task.id.startswith("broken_worlds:Counter:1:")
        assert refuses(name, env.step("jump").observation) and not refuses(name, env.step("up").observation)
        assert refuses(name, "Unknown: never seen")  # which the server is asked
        fork = env.fork()
        assert [fork.step("up").observation, fork.step("up").done] == ["You are at 2.", True]
        assert env.step("down").observation == "You are at 0."
        _, results = env.replay(1, ["up", "up", "up", "up"])
        assert [result.reward for result in results] == [0, 0, 1]
        with pytest.raises(EnvError, match="There is no task -1"):
            env.reset(-1)
        for session in (env, fork):
            session.close()
        assert open_task_set(settings_from_env({"TASK": COUNTER, "ENV_SERVER_BASE": url})).held_out(
            {4}
        ).indices == {4}


def test_another_environment_at_the_url_is_bad_input():
    with (
        serving(COUNTER) as (url, _),
        pytest.raises(InputError, match="serves no other:make: it says 'This is env"),
    ):
        make_environment("other:make", url)


def test_undescribed_the_spec_of_a_finished_run_can_be_read():
    spec = env_spec("somewhere:make")
    assert not spec.refusal.match("You can't")
    assert "Action:" in spec.full_prompt


def test_its_expert_gives_episodes_for_a_warm_start():
    with serving(COUNTER) as (url, _):
        settings = settings_from_env({"TASK": COUNTER, "ENV_SERVER_BASE": url})
        plan = tasks_to_play(settings, open_task_set(settings), "train", 0, 0, False)
        assert sorted(plan.given) == [0, 1, 2, 3]
        assert plan.given[1][0].replies[0].endswith("\nAction: up") and len(plan.given[1][0].replies) == 3
        with pytest.raises(InputError, match=r"--noise 0.5"):
            tasks_to_play(settings, open_task_set(settings), "train", 0, 0.5, False)


def test_the_stand_in_plays_by_it_and_judges():
    expert, rng = Expert(COUNTER), random.Random(0)
    acting = [{"role": "system", "content": "x"}, {"role": "user", "content": "Count to 3."}]
    assert expert.answer(acting, rng, 0).endswith("Action: up")
    log = "Count to 3.\n\nLog:\nAction: up\nObservation: You are at 1.\nCurrent action: {}\nCurrent observation: ok"
    verdicts = [
        expert.answer([{"role": "user", "content": log.format(act)}], rng, 0) for act in ("up", "down")
    ]
    assert [verdict[-4:] for verdict in verdicts] == ["Good", " Bad"]
    with pytest.raises(SourceError, match="it has no expert"):
        Expert("gymnasium:GuessLetter-v0")


def test_a_search_refuses_a_world_that_cannot_go_back(tmp_path):
    (tmp_path / "once.py").write_text(
        "class Once:\n    search_mode = 'live'\n    def reset(self, index): return 'x'\n"
        "    def step(self, action): return 'y', 0, False\n"
    )
    source = f"{tmp_path / 'once.py'}:Once"
    with serving(source) as (url, _):
        tasks = open_task_set(settings_from_env({"TASK": source, "ENV_SERVER_BASE": url}))
        assert tasks.environment().extensions == frozenset()
        with pytest.raises(
            InputError, match="TASK once:Once: its mode is live, so nothing can be executed again; use it"
        ):
            tasks.require_replay("use it")
        with closing(tasks.environment()) as env:
            assert env.reset(3).id == "once:Once:3"  # whatever it opens with
            env.step("x")
            env._remote._id = 12345  # a session that is not there
            with pytest.raises(EnvError, match="the session of index 3 is lost, and its mode is live"):
                env.step("x")


@pytest.mark.slow
def test_the_server_of_a_stage_is_started_again_and_ends_with_it(capsys):
    with own_server(COUNTER, restarts=1) as server:
        with closing(make_environment("broken_worlds:Counter", server.url, patience=60)) as env:
            assert env.reset(2).opening == "Count to 4."
            env.step("up")
            first = server.process
            first.kill()
            assert env.step("up").observation == "You are at 2."  # the episode was played again
        assert server.process is not first
    assert server.process.poll() is not None
    said = capsys.readouterr().err
    assert f"TASK {COUNTER}: its process ended with signal 9; it is started again\n" in said
    settings = settings_from_env({"TASK": COUNTER, "ENV_SERVER_BASE": "http://127.0.0.1:9"})
    with served(settings) as same:
        assert same is settings


@pytest.mark.slow
def test_a_server_that_does_not_start_is_one_line(tmp_path):
    (tmp_path / "bad.py").write_text("print('hello')\nraise RuntimeError('no licence')\n")
    source = f"{tmp_path / 'bad.py'}:make"
    with pytest.raises(InputError) as caught, served(settings_from_env({"TASK": source})):
        pass
    assert str(caught.value) == f"TASK {source}: RuntimeError: no licence"
    assert "yours_bad" not in sys.modules


@pytest.mark.slow
@pytest.mark.parametrize("package", ["textarena", "textworld"])
def test_a_worked_example_has_no_fault(package, capfd, tmp_path, monkeypatch):
    from mcts_utils.envs.check.__main__ import main

    pytest.importorskip(package)
    source = f"{__file__.rpartition('/servers/')[0]}/fixtures/yours/{package}_game.py:Game"
    monkeypatch.chdir(tmp_path)
    assert main([source, "--episodes", "4", "--steps", "10", "--limit_seconds", "60"]) == 0
    assert "mode       fork" in capfd.readouterr().out


def test_the_manifest_says_what_was_searched(tmp_path):
    with serving(COUNTER) as (url, _):
        settings = settings_from_env({"TASK": COUNTER, "ENV_SERVER_BASE": url, "MODEL_NAME": "m"})
        stage = SearchStage(settings, [0], tmp_path, open_task_set(settings).kind())
    assert stage.path(0).parent == tmp_path / "broken_worlds_Counter" / "m"
    assert "agent-r-yours-fork-" in json.dumps(stage.strategy.public())


def test_what_a_file_states_may_be_of_any_usual_type(tmp_path):
    (tmp_path / "loose.py").write_text(
        "import numpy, random\n"
        "class Loose:\n"
        "    mode, weights, version = 'easy', [1, 2], 3\n"  # names of its own
        "    def prompt(self): return 'Roll. Action: roll'\n"
        "    def split(self): return {'train': numpy.arange(3), 'test': []}\n"
        "    def reset(self, index): return f'Roll {index}', {}\n"
        "    def step(self, action): return [str(random.random()), numpy.float32(0), numpy.bool_(False)]\n"
        "    def valid_actions(self): return (f'roll {random.random()}' for _ in range(2))\n"
        "    def save(self): return None\n"
        "    def load(self, state): pass\n"
    )
    world = World(f"{tmp_path / 'loose.py'}:Loose")
    assert world.split == {"train": [0, 1, 2], "test": []}
    assert (world.about["prompt"], world.mode) == ("Roll. Action: roll", "fork")
    listing, plain = Session(world), Session(world)
    assert [listing.reset(1), plain.reset(1)] == ["Roll 1", "Roll 1"]
    assert len(listing.valid_actions()) == 2
    assert listing.step("roll") == plain.step("roll")
    assert listing.copy().step("roll") == plain.step("roll")
