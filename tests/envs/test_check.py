"""check-env: sound environments have no fault; each broken one is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from mcts_utils.envs import names, server_about
from mcts_utils.envs.check.__main__ import main
from mcts_utils.envs.check.probe import Plan, Probe
from mcts_utils.envs.check.verdicts import FAULT, NOTE
from mcts_utils.envs.http import HttpSession
from mcts_utils.envs.specs import env_spec
from mcts_utils.servers.app_server import running
from mcts_utils.servers.yours.app import create_app
from mcts_utils.servers.yours.world import World

WORLDS = Path(__file__).parents[1] / "helpers" / "broken_worlds.py"
FAULTS = {  # class -> topic and a part of the fault's text
    "RewardAboveOne": ("errors", "the sum of the rewards is 10, outside [0, 1]: state reward_range"),
    "NegativeReward": ("errors", "the sum of the rewards is -0.1, outside [0, 1]"),
    "RewardIsNone": ("errors", "the reward is None, not a finite number"),
    "RewardIsNan": ("errors", "the reward is nan, not a finite number"),
    "NeverDone": ("done", "never, in 3 episodes"),
    "RaisesInStep": ("errors", "raised KeyError: 'no such room'"),
    "RaisesInReset": ("errors", "raised RuntimeError: no map for this index"),
    "RewardIsHuge": ("errors", "the reward is a whole number of more than 300 digits"),
    "InterruptsInStep": ("errors", "raised KeyboardInterrupt:"),
    "ExitsInStep": ("errors", "raised SystemExit: 3"),
    "Blocks": ("errors", "has not returned within 0.3 s"),
    "NoText": ("errors", "returned dict {'text': 'You are at 1.'} as its observation, not text"),
    "OpensWithoutText": ("errors", "returned None as its observation, not text"),
    "TwoValues": ("errors", "returned tuple ('You are at 1.', 0.0), not (text, reward, done)"),
    "DoneIsText": ("errors", "returned done='no', not True or False"),
    "OpensAnew": ("opening", "opening: 'Count to "),
    "AnswersAnew": ("replay", 'text: "You are at '),
    "SharesState": ("sessions", "two at once disturb each other: index"),
    "CopySharesState": ("copy", "the original after it differs: index"),
    "CopyIsItself": ("copy", "copy() returned CopyIsItself <"),
    "CopyForgets": ("copy", "the copy differs: index"),
    "RefusalUnseen": ("refusals", "is not recognised: 'Unknown: xyzzy'"),
    "RefusesAll": ("refusals", "a step that raised the score counts as refused: 'You are at "),
    "CloseRaises": ("closing", "close() raised OSError: cannot close"),
    "NonsenseRaises": (
        "refusals",
        "nonsense is answered with an error: step('xyzzy') raised KeyError: 'xyzzy'",
    ),
}
MODES = {"Counter": "fork", "CopyForgets": "replay", "AnswersAnew": "live", "SharesState": "replay"}


@contextmanager
def probing(source: str) -> Iterator[Probe]:
    """Yield a probe of an environment that this process serves."""
    world = World(source)
    with (
        running(create_app(world, limit=0.3 if "Blocks" in source else 30)) as url,
        closing(HttpSession(url, 35)) as http,
    ):
        yield Probe(http, env_spec(world.name), server_about(url), world.split or {}, Plan(3, 8))


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_environment_is_named(name):
    topic, text = FAULTS[name]
    with probing(f"{WORLDS}:{name}") as probe:
        found = [(verdict.topic, verdict.text) for verdict in probe.run() if verdict.level == FAULT]
    assert any(one == topic and text in said for one, said in found), found
    other = {one for one, _ in found} - {topic, "mode"}
    assert other <= {"SharesState": {"copy"}}.get(name, set()), found


def test_an_environment_that_says_that_it_is_live_may_answer_anew():
    with probing(f"{WORLDS}:SaysLive") as probe:
        found = list(probe.run())
    assert not [str(verdict) for verdict in found if verdict.level == FAULT]
    assert "replay" in {verdict.topic for verdict in found if verdict.level == NOTE}


@pytest.mark.parametrize("name", MODES)
def test_the_mode_is_picked(name):
    with probing(f"{WORLDS}:{name}") as probe:
        last = list(probe.run())[-1]
    assert (last.topic, last.text.split(",")[0]) == ("mode", MODES[name])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("NoReset", "a NoReset has no reset()"),
        ("SplitOverlaps", "split(): index 2 is in 'train' and in 'test'"),
        ("SplitIsNone", "split() returned None, not {'train': indices, 'test': indices}"),
        ("SplitIsHuge", "split()['train'] has more than 1000000 indices"),
        ("PromptIsNumber", "prompt returned int 5 as the system turn, not text"),
        ("ModeIsList", "TypeError: unhashable type: 'list'"),
        ("BadRange", "reward_range must be (low, high), finite, low < high: (1, 0)"),
        ("BadMode", "search_mode must be one of fork, replay, live: 'maybe'"),
        ("not_made", "making it raised FileNotFoundError: no game file"),
        ("missing", "AttributeError: module 'yours_broken_worlds' has no attribute 'missing'"),
    ],
)
def test_what_cannot_be_started_is_one_line(name, text):
    with pytest.raises(ValueError, match="broken_worlds.py") as caught:
        World(f"{WORLDS}:{name}")
    assert str(caught.value) == f"{WORLDS}:{name}: {text}"


def test_a_pattern_of_refusals_is_proposed(tmp_path):
    (tmp_path / "plain.py").write_text(
        f"import sys; sys.path.append({str(WORLDS.parent)!r})\nfrom broken_worlds import Counter\n"
        "class Plain(Counter):\n    @property\n    def is_refusal(self):\n        raise AttributeError\n"
    )
    with probing(f"{tmp_path / 'plain.py'}:Plain") as probe:
        said = next(verdict.text for verdict in probe.run() if verdict.topic == "refusals")
    assert said == "no is_refusal; proposed: return re.match('Unknown:\\\\ ', text) is not None"


@pytest.mark.slow
def test_the_command_prints_a_line_a_verdict_and_says_that_a_server_died(capsys):
    assert main([f"{WORLDS}:Counter", "--episodes", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ok     start") and lines[-1] == f"{WORLDS}:Counter: no faults"
    assert main([f"{WORLDS}:Dies", "--episodes", "3"]) == 1
    assert "FAULT  server     its process ended with exit code 7\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["nowhere"],
            f"TASK must be one of {', '.join(names())}: 'nowhere'",
        ),
        (["./nowhere.py:make"], "TASK ./nowhere.py:make: no such file"),
        (
            ["my env:make"],
            "TASK must be FILE.py:FUNCTION, PACKAGE.MODULE:FUNCTION or gymnasium:ID: 'my env:make'",
        ),
        (["./a.py:make", "--episodes", "0"], "--episodes must be between 1 and 100000: 0"),
        (["./a.py:make", "--actions", "none.txt"], "--actions is no file: 'none.txt'"),
        (["textcraft"], "ENV_SERVER_BASE is not set (environment, .env or flag)"),
    ],
)
def test_bad_input_is_one_line(arguments, text, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ENV_SERVER_BASE", raising=False)
    assert main(arguments) == 2
    assert capsys.readouterr().err == f"mcts_utils.envs.check: {text}\n"
