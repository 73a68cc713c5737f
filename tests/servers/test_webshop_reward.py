"""The reward of the bundled WebShop server, term by term."""

from __future__ import annotations

import pytest

from mcts_utils.servers.webshop.reward import (
    COLOURS,
    alike,
    attributes_met,
    colour_of,
    options_met,
    reward,
    title_nouns,
    title_score,
    type_term,
)
from tests.helpers.small_shop import goal, product

WISHES = {"color": "black", "size": "small"}


def test_everything_met_pays_one():
    paid = reward(product(), WISHES, goal())
    assert (paid.attributes, paid.options, paid.price, paid.type.factor, paid.total) == (2, 2, True, 1.0, 1.0)


@pytest.mark.parametrize(
    ("chosen", "changes", "total"),
    [
        ({}, {}, 3 / 5),  # bought without choosing
        ({"color": "black"}, {}, 4 / 5),
        ({"color": "navy blue", "size": "small"}, {}, 4 / 5),
        ({"color": "black", "size": "x-large"}, {}, 4 / 5),
        (WISHES, {"price": 50.0}, 1.0),  # the limit itself is within it
        (WISHES, {"price": 50.01}, 4 / 5),
        (WISHES, {"attributes": ("steel frame",)}, 4 / 5),
        (WISHES, {"attributes": (), "bullets": ()}, 3 / 5),
        ({}, {"attributes": (), "bullets": (), "price": 99.0}, 0.0),
    ],
)
def test_each_part_weighs_the_same(chosen, changes, total):
    assert reward(product(**changes), chosen, goal()).total == pytest.approx(total)


def test_type_multiplies_the_rest():
    other = {"query": "x", "product_category": "Garden", "title": "Acme Rug"}
    paid = reward(product(**other), WISHES, goal(target=product(title="Acme Brass Floor Lamp Stand Light")))
    assert paid.type.factor == 0.5 and paid.total == 0.5


def test_goal_without_options():
    assert reward(product(), {}, goal(options=())).total == 1.0


# --- the kind of product


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, (True, True, 1.0, 1.0)),
        ({"query": "x"}, (False, True, 1.0, 1.0)),  # two levels in common
        ({"product_category": "Home › Other"}, (True, False, 1.0, 1.0)),  # same query
        ({"query": "x", "product_category": "Floor Lamps › Home"}, (False, True, 1.0, 1.0)),  # in any order
        ({"query": "x", "product_category": "Home › Home"}, (False, False, 1.0, 1.0)),  # title alone
        # the target's nouns are acme, floor, lamp, brass: 1 of 4 is above 0.2
        ({"query": "x", "product_category": "x", "title": "Other Lamp"}, (False, False, 0.25, 1.0)),
        ({"title": "Wool Rug"}, (True, True, 0.0, 0.0)),  # nothing in common pays nothing, whatever matches
    ],
)
def test_type_term(changes, expected):
    term = type_term(product(**changes), product())
    assert (term.query_match, term.category_match, term.title_score, term.factor) == expected


@pytest.mark.parametrize(
    ("nouns", "factor"), [(4, 1.0), (5, 0.5), (10, 0.5), (11, 0.1)]
)  # one shared noun of so many
def test_type_term_by_title_score(nouns, factor):
    words = ["lamp", *("abcdefghijk"[place] * 3 for place in range(nouns - 1))]
    stranger = product(query="x", product_category="x", title="Lamp")
    assert type_term(stranger, product(title=" ".join(words))).factor == factor


def test_a_low_title_score_overrides_a_match():
    target = product(title="lamp " + " ".join("abcdefghijk"[place] * 3 for place in range(10)))
    assert type_term(product(title="Lamp"), target).factor == 0.1


def test_title_nouns_leave_out_numbers_function_words_and_adjectives():
    assert title_nouns("Acme Easy-to-Use 2-Pack LED Lamp for the Living Room, 12V (Black)") == (
        *("acme", "pack", "led", "lamp", "living", "room"),
        "black",
    )
    assert title_score("Anything", "2 in 1, new") == 0.2  # a target without nouns


# --- attributes and options


@pytest.mark.parametrize(
    ("wanted", "met"),
    [
        (["brass finish"], 1),
        (["finish brass"], 1),  # order of words
        (["easy assembly"], 1),  # nearly the same
        (["long lasting"], 1),  # in a bullet
        (["that lasts"], 1),  # in the description
        (["floor lamp"], 1),  # in the title, whatever its case
        (["brushed steel"], 0),
        (["lasting bulb for"], 1),  # across two bullets
        (["brass finish", "brushed steel", "easy assemble"], 2),
    ],
)
def test_attributes_met(wanted, met):
    assert attributes_met(product(), wanted) == met


@pytest.mark.parametrize(
    ("chosen", "wanted", "met"),
    [
        ({"color": "black"}, [("color", "black")], 1),
        ({"color": "matte black"}, [("color", "black")], 1),  # its colour is black
        ({"color": "blue"}, [("color", "navy blue")], 1),  # one word of it
        ({"color": "red"}, [("color", "navy blue")], 0),
        ({"size": "x-large"}, [("size", "large")], 0),
        ({"size": "large"}, [("size", "x-large")], 1),  # all its words are there
        ({"style": "black"}, [("color", "black")], 1),  # names do not count
        ({"size": "8"}, [("size", "8")], 1),
        ({"size": "8"}, [("size", "9")], 0),
        ({"color": "black", "size": "8"}, [("color", "black"), ("size", "9")], 1),
        ({"color": "black"}, [("", "Matte black")], 1),  # written by people: no name
        ({}, [("color", "black")], 0),
    ],
)
def test_options_met(chosen, wanted, met):
    assert options_met(chosen, wanted) == met


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("essential oils", "essential oil", True),
        ("tea tree", "tea bag", False),
        ("é", "e", False),  # accented letters are dropped, not folded
        ("naïve-look", "NAVE LOOK", True),
        ("", "", False),
        ("gluten free snacks", "gluten free", True),
    ],
)
def test_alike(one, other, same):
    assert alike(one, other) is same


def test_colour_is_the_first_by_the_alphabet():
    assert list(COLOURS) == sorted(COLOURS)
    assert colour_of("navy blue") == "blue" and colour_of("pack of 3") == "pack of 3"
