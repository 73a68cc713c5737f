"""The scripted ScienceWorld expert: solves its games without noise, slips with it, and judges steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from statistics import mean

import pytest

pytest.importorskip("scienceworld", reason="the scienceworld package is not installed")
from mcts_utils.servers.sciworld import jvm
from mcts_utils.servers.sciworld.expert import answer, demo_ids, known_games, opening_key
from mcts_utils.servers.sciworld.games import games, split
from mcts_utils.servers.sciworld.pool import Pool
from mcts_utils.servers.sciworld.sessions import Sessions

STEPS = 50  # as many as a demo's depth allows
Turn = tuple[str, str]


@pytest.fixture(scope="module")
def sessions() -> Iterator[Sessions]:
    setup = jvm.Setup(heap="256m")
    pool = Pool(1, setup, jvm.check(setup))
    yield Sessions(pool, 3600, lambda: 0.0)
    pool.close()


@pytest.fixture(scope="module")
def solved(sessions: Sessions) -> dict[int, tuple[float, list[Turn], str]]:
    """Games of both splits, played without noise."""
    chosen = [*demo_ids("train")[::9], *demo_ids("test")[::9]]
    return {index: play(sessions, index, 0, 0.0) for index in chosen}


def turn(role: str, content: str) -> dict:
    return {"role": role, "content": content}


def action_in(reply: str) -> str:
    return reply.rsplit("Action: ", 1)[1]


def play(sessions: Sessions, index: int, seed: int, noise: float) -> tuple[float, list[Turn], str]:
    """Final reward, the turns, the opening."""
    number, rng = sessions.create()["id"], random.Random(seed)
    start = sessions.reset(number, index)
    opening = f"{start['task_description']}\n{start['observation']}"
    messages = [turn("system", "Play."), turn("user", opening)]
    turns: list[Turn] = []
    score = 0
    for _ in range(STEPS):
        reply = answer(messages, rng, noise)
        heard = sessions.step(number, action_in(reply))
        messages += [turn("assistant", reply), turn("user", heard["observation"])]
        turns.append((action_in(reply), heard["observation"]))
        score = heard["score"]
        if heard["done"]:
            break
    sessions.close(number)
    return max(score, 0) / 100, turns, opening


def ask(opening: str, before: list[Turn], current: Turn, noise: float = 0.0, seed: int = 0) -> str:
    log = "".join(f"Action: {a}\nObservation: {o}\n" for a, o in before)
    question = f"{opening}\n\nLog:\n{log}Current action: {current[0]}\nCurrent observation: {current[1]}"
    reply = answer([turn("system", "Judge."), turn("user", question)], random.Random(seed), noise)
    return reply.rsplit("Judgment: ", 1)[1]


def test_the_demo_games_keep_to_the_split() -> None:
    assert set(demo_ids("train")) <= set(split()["train"])
    assert set(demo_ids("test")) <= set(split()["test"])
    assert {games()[i].task for i in demo_ids("train")} == {game.task for game in games()}
    assert len(known_games()) == len(demo_ids("train")) + len(demo_ids("test")), (
        "openings tell the games apart"
    )
    assert max(len(game.path) for game in known_games().values()) <= 40


@pytest.mark.java
def test_without_noise_it_earns_1(solved: dict[int, tuple[float, list[Turn], str]]) -> None:
    rewards = {index: reward for index, (reward, _, _) in solved.items()}
    assert rewards == dict.fromkeys(solved, 1.0)


@pytest.mark.java
def test_with_noise_rewards_spread(sessions: Sessions) -> None:
    short = [g.id for g in known_games().values() if len(g.path) < 27 and g.id in demo_ids("train")][:16:4]
    played = [play(sessions, index, seed, 0.3) for index in short for seed in range(3)]
    rewards = [reward for reward, _, _ in played]
    assert 0.2 < mean(rewards) < 0.95
    assert max(rewards) == 1.0 and min(rewards) < 0.5
    heard = [observation for _, turns, _ in played for _, observation in turns]
    assert any(observation.startswith("No known action") for observation in heard)


@pytest.mark.java
def test_a_wrong_focus_is_among_the_slips_and_fatal(sessions: Sessions) -> None:
    index = next(g.id for g in known_games().values() if g.trap)
    ends = (play(sessions, index, seed, 0.9)[1][-1][0] for seed in range(12))
    fatal = next((end for end in ends if end == "focus on agent"), "")
    assert fatal, "none of twelve noisy players focused on the wrong thing"
    number = sessions.create()["id"]
    sessions.reset(number, index)
    assert sessions.step(number, fatal)["score"] == -100
    sessions.close(number)


@pytest.mark.java
def test_verdicts_follow_the_path(solved: dict[int, tuple[float, list[Turn], str]]) -> None:
    for index in demo_ids("train")[::9]:
        _, turns, opening = solved[index]
        verdicts = [ask(opening, turns[:i], turns[i]) for i in range(len(turns))]
        assert verdicts == ["Good"] * len(turns)
        refused = ("dance", "No known action matches that input.")
        assert ask(opening, turns[:2], refused) == "Bad"
        assert ask(opening, [*turns[:2], refused], turns[2]) == "Good", "a slip does not lose the place"
        assert ask(opening, turns[:1], ("focus on agent", "You focus on the agent.")) == "Bad"
        assert ask(opening, turns[:1], ("inventory", "In your inventory, you see:\n\tan orange")) == "Bad"
        assert ask(opening, turns[:1], ("open freezer", "The freezer is now open.")) == "Uncertain"
        noisy = {ask(opening, turns[:1], turns[1], 1.0, seed) for seed in range(20)}
        assert noisy == {"Good", "Bad", "Uncertain"}


def test_an_unknown_place_is_looked_at() -> None:
    reply = answer([turn("user", "Your task is to fly.\nThis is the moon.")], random.Random(0), 0.0)
    assert action_in(reply) == "look around"
    assert ask("Your task is to fly.", [], ("fly", "No known action matches that input.")) == "Bad"


def test_an_opening_is_known_in_any_order_of_its_lines() -> None:
    assert opening_key("a\n\tb\nc") == opening_key("a\nc\n  b\n")
    assert opening_key("a\nb") != opening_key("a\nc")
