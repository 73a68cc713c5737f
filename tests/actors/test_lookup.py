"""Guessed tokens: fewer passes, the same replies."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mcts_utils.actors.local import LocalActor, load_model
from mcts_utils.actors.lookup import GUESSES, PAUSE, Gain, guess
from mcts_utils.actors.slot_engine import SlotEngine
from mcts_utils.types import Message

LOGS = ("oak", "birch", "spruce", "dark oak", "acacia", "jungle")


def test_guess_is_what_followed_the_longest_match():
    row = [5, 1, 2, 3, 40, 41, 42, 43, 44, 45, 46, 47, 9, 2, 3, 60, 61, 1, 2, 3]
    ids = np.zeros((3, 40), np.int64)
    ids[0, : len(row)] = row  # 1 2 3 came before; 2 3 later too
    ids[1, :6] = [7, 8, 9, 1, 2, 8]  # only 8 came before, and the row ends soon after it
    ids[2, :2] = [3, 4]  # nothing
    found = guess(ids, np.array([len(row), 6, 2]))
    assert found.shape == (3, GUESSES)
    assert found[0].tolist() == [40, 41, 42, 43, 44, 45, 46]
    assert found[1, :4].tolist() == [9, 1, 2, 8]


def test_guess_takes_the_later_of_two_equal_matches_and_never_the_end_itself():
    ids = np.array([[1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3]])
    assert guess(ids, np.array([11]))[0, :4].tolist() == [8, 1, 2, 3]
    assert guess(np.array([[4]]), np.array([1])).shape == (1, GUESSES)


def test_guesses_pause_where_they_win_nothing():
    gain = Gain()
    for _ in range(100):
        if gain.worth():
            gain.add(1.0)
    worth = []
    for _ in range(4 * PAUSE):
        worth.append(gain.worth())
        if worth[-1]:
            gain.add(1.0)
    assert 0 < sum(worth) < PAUSE
    steady = Gain()
    for _ in range(100):
        assert steady.worth()
        steady.add(3.0)


def conversation(seed: int) -> list[Message]:
    """A goal, and an agent that has tried the same action twice."""
    log = LOGS[seed % len(LOGS)]
    goal = f"Crafting commands:\ncraft 4 {log} planks using 1 {log} log\n\nGoal: craft {log} planks."
    tried = [
        Message("assistant", f"Thought: To craft {log} planks I need 1 {log} log.\nAction: get 1 {log} log"),
        Message("user", f"Could not find {log} log"),
    ]
    return [Message("user", goal), *tried, *tried]


@pytest.mark.parametrize("number_format", ["float32", "bfloat16"])
def test_replies_are_those_of_one_token_a_pass(number_format, monkeypatch):
    passes = []
    decode = SlotEngine._decode
    monkeypatch.setattr(
        SlotEngine, "_decode", lambda self: (passes.append(len(self._running)), decode(self))[1]
    )

    def replies() -> list[list[str]]:
        """Greedy and sampled replies to conversations that come and go in one batch."""
        actor = LocalActor(*load_model("models/tiny_actor", number_format=number_format), 48, 8)
        order = list(range(12))
        random.Random(len(passes)).shuffle(order)
        with ThreadPoolExecutor(6) as pool:
            each = pool.map(
                lambda i: [s.text for s in actor.sample(conversation(i), 2, temperature=i % 2, seed=i)], order
            )
            found = dict(zip(order, each, strict=True))
        actor.close()
        return [found[i] for i in range(12)]

    guessed, with_guesses = replies(), sum(passes)
    passes.clear()
    monkeypatch.setattr(Gain, "worth", lambda self: False)
    assert replies() == guessed
    assert with_guesses < 0.6 * sum(passes)
    assert len({text for each in guessed for text in each}) > 6, "a model that says one thing proves nothing"
