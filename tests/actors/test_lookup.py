"""Guessed tokens: fewer passes, the same replies."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mcts_utils.actors import lookup
from mcts_utils.actors.local import LocalActor, load_model
from mcts_utils.actors.lookup import GUESSES, PAUSE, Gain, Lookup
from mcts_utils.actors.slot_engine import SlotEngine
from mcts_utils.types import Message

LOGS = ("oak", "birch", "spruce", "dark oak", "acacia", "jungle")


def guessed(found: Lookup, *rows: list[int]) -> list[list[int]]:
    """The guesses after conversations of different lengths in one batch."""
    ids = np.full((len(rows), max(map(len, rows)) + 3), 99)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    guesses = found.guess(ids, np.array([len(row) for row in rows]))
    assert guesses.shape == (len(rows), GUESSES)
    return [guess.tolist() for guess in guesses]


def test_guess_is_what_followed_the_longest_context_in_any_conversation():
    found = Lookup()
    found.learn(np.array([5, 1, 2, 3, 4, 40, 41, 42, 43, 44, 45, 46, 47, 48]), 0)
    found.learn(np.array([6, 3, 4, 50, 51, 52, 53, 54, 55, 56, 57]), 0)  # 3 4 again, later; but not 1 2 3 4
    assert guessed(found, [9, 1, 2, 3, 4], [9, 3, 4], [9, 9]) == [
        [40, 41, 42, 43, 44, 45, 46],
        [50, 51, 52, 53, 54, 55, 56],
        [0] * GUESSES,
    ]


def test_guess_takes_the_later_of_two_equal_contexts_and_ends_with_the_conversation():
    found = Lookup()
    ids = np.array([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3])
    found.learn(ids, 0)
    assert guessed(found, ids.tolist(), [3]) == [[8, 1, 2, 3, 0, 0, 0]] * 2
    found.learn(np.array([*ids, 20, 21]), len(ids))  # its reply
    assert guessed(found, ids.tolist(), [4, 1]) == [[20, 21, 0, 0, 0, 0, 0], [2, 3, 20, 21, 0, 0, 0]]


def test_contexts_that_occurred_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(lookup, "MOST", 10)
    found = Lookup()
    for i in range(0, 60, 3):
        found.learn(np.array([i, i + 1, i + 2]), 0)
        assert guessed(found, [i])[0][:2] == [i + 1, i + 2]
    assert guessed(found, [54], [0])[1] == [0] * GUESSES
    assert guessed(found, [54])[0][:2] == [55, 56]
    assert len(found._recent) + len(found._older) <= 2 * (lookup.MOST + 3)


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
