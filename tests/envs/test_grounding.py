"""Which valid action is meant by one that the simulator does not understand."""

from __future__ import annotations

import random

import pytest

from mcts_utils.envs.grounding import nearest

VALID = (
    *("look around", "inventory", "task", "wait1", "wait", "reset task"),
    *(
        "open door to kitchen",
        "close door to kitchen",
        "open door to hallway",
        "open cupboard",
        "go to kitchen",
    ),
    *("go to hallway", "activate stove", "deactivate stove", "pick up metal pot", "pick up tin cup"),
    *(
        "pick up ceramic cup",
        "pick up thermometer",
        "focus on thermometer",
        "focus on water",
        "focus on apple in bowl",
    ),
    *("use thermometer on water", "use thermometer on metal pot", "use metal pot on thermometer"),
    *("pour water into metal pot", "pour metal pot into water", "move metal pot to stove", "look at stove"),
    *("connect battery cathode to red wire terminal 1", "connect battery cathode to red wire terminal 2"),
    *("put down metal pot", "look in cupboard", "mix metal pot"),
)


@pytest.mark.parametrize(
    ("action", "meant"),
    [
        ("open the kitchen door", "open door to kitchen"),
        ("Open door to the kitchen.", "open door to kitchen"),
        ("go kitchen", "go to kitchen"),
        ("walk to the kitchen", "go to kitchen"),
        ("move to kitchen", "go to kitchen"),
        ("take the pot", "pick up metal pot"),
        ("grab metal pot from cupboard", "pick up metal pot"),
        ("pick up termometer", "pick up thermometer"),
        ("turn on the stove", "activate stove"),
        ("switch off stove", "deactivate stove"),
        ("put the metal pot on the stove", "move metal pot to stove"),
        ("drop metal pot", "put down metal pot"),
        ("look inside the cupboard", "look in cupboard"),
        ("examine stove", "look at stove"),
        ("use the thermometer on the pot", "use thermometer on metal pot"),
        ("pour the water in the metal pot", "pour water into metal pot"),
        ("connect cathode to red wire terminal 2", "connect battery cathode to red wire terminal 2"),
        ("check inventory", "inventory"),
        ("focus on the thermometer", "focus on thermometer"),
    ],
)
def test_what_is_meant(action: str, meant: str) -> None:
    assert nearest(action, VALID) == meant


@pytest.mark.parametrize(
    "action",
    [
        "",
        "dance",
        "0",
        "the kitchen door",
        "open fridge",  # not here
        "open drawer",
        "pick up cup",  # two fit as well
        "pick up glass cup",  # a word may not stand for another
        "connect battery anode to red wire terminal 1",
        "connect battery cathode to red wire terminal 3",  # numbers are never alike
        "use thermometer",  # on what
        "close cupboard",  # opening is not closing
        "focus on apple",  # a wrong focus loses the task: it must be word for word
        "focus on the substance called water",
        "reset task",
        "go to the art studio",
    ],
)
def test_what_means_nothing_here(action: str) -> None:
    assert nearest(action, VALID) is None


def test_the_order_of_the_list_does_not_matter() -> None:
    shuffled = list(VALID)
    for seed in range(20):
        random.Random(seed).shuffle(shuffled)
        assert nearest("use the thermometer on the pot", shuffled) == "use thermometer on metal pot"
        assert nearest("pick up cup", shuffled) is None


def test_numbers_are_never_alike() -> None:
    assert nearest("move jar 100 to stove", ["move jar 10 to stove"]) is None
    assert nearest("move jarr 10 to stove", ["move jar 10 to stove"]) == "move jar 10 to stove"


def test_no_list_means_nothing() -> None:
    assert nearest("open door", []) is None


@pytest.mark.parametrize("action", VALID[:5] + VALID[6:])
def test_a_valid_action_means_itself(action: str) -> None:
    assert nearest(action, VALID) == action
