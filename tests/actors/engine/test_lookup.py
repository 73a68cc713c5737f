"""Guessed tokens: fewer passes, the same replies."""

import random
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mcts_utils.actors.engine import lookup
from mcts_utils.actors.engine.lookup import CONTEXTS, GUESSES, PAUSE, Gain, Lookup
from mcts_utils.actors.engine.slot_engine import SlotEngine
from mcts_utils.types import Message
from tests.helpers.engines import actor_in

LOGS = ("oak", "birch", "spruce", "dark oak", "acacia", "jungle")


def guessed(found: Lookup, *rows: list[int]) -> list[list[int]]:
    """The guesses after conversations of different lengths in one batch, without the zeros at the end."""
    ids = np.full((len(rows), max(map(len, rows)) + 3), 99)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    guesses, contexts = found.guess(ids, np.array([len(row) for row in rows]))
    assert guesses.shape == (len(rows), GUESSES) and contexts.shape == (len(rows),)
    assert [bool(guess.any()) for guess in guesses] == [context < len(CONTEXTS) for context in contexts]
    return [np.trim_zeros(guess, "b").tolist() for guess in guesses]


def test_guess_is_what_followed_the_longest_context_in_any_conversation():
    found = Lookup()
    found.learn(np.array([5, 1, 2, 3, 4, *range(40, 60)]), 0)
    found.learn(np.array([6, 3, 4, *range(60, 80)]), 0)  # 3 4 again, later; but not 1 2 3 4
    assert guessed(found, [9, 1, 2, 3, 4], [9, 3, 4], [9, 9]) == [
        list(range(40, 40 + GUESSES)),
        list(range(60, 60 + GUESSES)),
        [],
    ]
    _, contexts = found.guess(np.array([[9, 1, 2, 3, 4], [9, 9, 9, 3, 4], [1, 1, 9, 9, 9]]), np.full(3, 5))
    assert [(*CONTEXTS, 0)[context] for context in contexts] == [4, 2, 0]


def test_guess_takes_the_later_of_two_equal_contexts_and_ends_with_the_conversation():
    found = Lookup()
    ids = np.array([1, 2, 3, 7, 1, 2, 3, 8, 1, 2, 3])
    found.learn(ids, 0)
    assert guessed(found, ids.tolist(), [3]) == [[8, 1, 2, 3]] * 2
    found.learn(np.array([*ids, 20, 21]), len(ids))  # its reply
    assert guessed(found, ids.tolist(), [4, 1]) == [[20, 21], [2, 3, 20, 21]]


def test_contexts_that_occurred_long_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(lookup, "MOST", 10)
    found = Lookup()
    for i in range(0, 60, 3):
        found.learn(np.array([i, i + 1, i + 2]), 0)
        assert guessed(found, [i])[0][:2] == [i + 1, i + 2]
    assert guessed(found, [54], [0])[1] == []
    assert guessed(found, [54])[0][:2] == [55, 56]
    assert len(found._recent) + len(found._older) <= 2 * (lookup.MOST + 3)


def test_as_many_tokens_are_guessed_as_pay():
    """After each context for itself: more than were right before, nothing for a while where none was."""
    often, never, fresh, none = 0, 1, 2, len(CONTEXTS)
    contexts = np.array([often, often, never, none])
    gain, asked_never = Gain(), []
    for _ in range(10 * PAUSE):
        asked = gain.counts(contexts)
        asked_never.append(int(asked[2]))
        # After no context, too, where all conversations are asked about equally many.
        given = np.maximum(asked, [0, 0, 0, GUESSES])
        gain.add(contexts, given, np.minimum(given, [4, 6, 0, GUESSES]))
    assert 5 < asked[0] == asked[1] <= 9 and asked[3] == 0
    tried = sum(count > 0 for count in asked_never[5 * PAUSE :])
    assert 0 < tried < PAUSE and max(asked_never[5 * PAUSE :]) == 1, "tried again now and then"
    assert gain.counts(np.array([fresh])) == GUESSES, "what never occurred is tried"
    for _ in range(4 * PAUSE):  # it has become better
        asked = gain.counts(np.array([never]))
        gain.add(np.array([never]), asked, asked)
    assert asked == GUESSES


def conversation(seed: int) -> list[Message]:
    """A goal, and an agent that has tried the same action twice."""
    log = LOGS[seed % len(LOGS)]
    goal = f"Crafting commands:\ncraft 4 {log} planks using 1 {log} log\n\nGoal: craft {log} planks."
    tried = [
        Message("assistant", f"Thought: To craft {log} planks I need 1 {log} log.\nAction: get 1 {log} log"),
        Message("user", f"Could not find {log} log"),
    ]
    return [Message("user", goal), *tried, *tried]


def test_replies_are_those_of_one_token_a_pass(monkeypatch):
    passes = []
    reply = SlotEngine._reply
    monkeypatch.setattr(
        SlotEngine,
        "_reply",
        lambda self, rows, *rest: (passes.append(len(rows)), reply(self, rows, *rest))[1],
    )

    def replies() -> list[list[str]]:
        """Greedy and sampled replies to conversations that come and go in one batch."""
        actor = actor_in("models/tiny_actor", 48, 8)
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
    monkeypatch.setattr(Gain, "counts", lambda self, contexts: np.zeros_like(contexts))
    assert replies() == guessed
    assert with_guesses < 0.6 * sum(passes)
    assert len({text for each in guessed for text in each}) > 6, "a model that says one thing proves nothing"
