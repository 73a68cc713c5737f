"""The bundled WebShop's catalogue, goals, search, pages and engine: no HTTP."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.servers.webshop import catalogue
from mcts_utils.servers.webshop.engine import MAX_ACTION, ShopSession, parsed
from mcts_utils.servers.webshop.goals import split
from mcts_utils.servers.webshop.index import Index, tokens
from mcts_utils.servers.webshop.models import NO_LIMIT
from mcts_utils.servers.webshop.pages import joined, results_page
from mcts_utils.servers.webshop.reward import reward
from mcts_utils.servers.webshop.shop import bundled_shop
from tests.helpers.small_shop import goal, product, shop

GOAL = goal().text
HEAD = f"Instruction: [SEP] {GOAL} [SEP] Back to Search"
SEARCH = f"WebShop [SEP] Instruction: [SEP] {GOAL} [SEP] Search"
LAMP_PAGE = (
    f"{HEAD} [SEP] < Prev [SEP] color [SEP] black [SEP] navy blue [SEP] size [SEP] small [SEP] x-large [SEP] "
    "Acme Floor Lamp Brass [SEP] Price: $45.5 [SEP] Rating: N.A. [SEP] Description [SEP] Features [SEP] Reviews "
    "[SEP] Buy Now"
)
DONE = (
    "Thank you for shopping with us! [SEP] Your code: [SEP] None [SEP] (Paste it in your MTurk interface.) [SEP] "
    "Purchased [SEP] asin [SEP] B000000001 [SEP] options [SEP] {options} [SEP] attrs [SEP] None [SEP] category "
    "[SEP] None [SEP] query [SEP] None [SEP] product category [SEP] None [SEP] Target [SEP] asin [SEP] options "
    "[SEP] attrs [SEP] price upper [SEP] instuction text [SEP] category [SEP] product category [SEP] query [SEP] "
    "Goal [SEP] None [SEP] Reward [SEP] Your score (min 0.0, max 1.0) [SEP] {reward} [SEP] Reward Details [SEP] None"
)


def player(number: int = 0) -> ShopSession:
    small = shop()
    return ShopSession(small, small.goals[number])


def walk(p: ShopSession, *actions: str) -> str:
    """The text after the last of some actions that pay nothing."""
    text = p.page().text
    for action in actions:
        text, paid, done = p.step(action)
        assert (paid, done) == (0.0, False), action
    return text


# --- the synthetic catalogue


def test_catalogue_is_as_large_as_promised():
    stock = bundled_shop().products
    assert len(stock) >= 1000 and len(bundled_shop().goals) >= 1500
    assert len({p.asin for p in stock}) == len({p.title for p in stock}) == len(stock)
    assert set(Counter(p.category for p in stock)) == {
        "beauty",
        "electronics",
        "fashion",
        "garden",
        "grocery",
    }
    assert min(Counter(p.category for p in stock).values()) >= 200
    assert all(p.options and p.attributes and p.description and p.bullets and p.price > 0 for p in stock)
    assert any(" to $" in p.price_tag for p in stock)


@pytest.mark.slow
def test_catalogue_is_the_same_in_every_process():
    command = [
        sys.executable,
        "-c",
        "from mcts_utils.servers.webshop.shop import bundled_shop as b; print(b().kind)",
    ]
    root = Path(__file__).resolve().parents[2]
    kinds = {
        subprocess.run(
            command, cwd=root, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert kinds == {bundled_shop().kind}


def test_another_seed_is_another_shop():
    stock = catalogue.products(7)
    assert stock != list(bundled_shop().products) and len(stock) == len(bundled_shop().products)
    goals = catalogue.goals(stock, 7)
    assert {g.content for g in goals} != {g.content for g in bundled_shop().goals}
    assert all(reward(g.target, dict(g.options), g).total == 1 for g in goals)


def test_every_goal_is_met_by_its_target():
    for g in bundled_shop().goals:
        assert reward(g.target, dict(g.options), g).total == 1.0, g.text
        assert all(value in g.target.options[name] for name, value in g.options)


def test_text_says_all_that_the_reward_asks_for():
    for g in bundled_shop().goals:
        assert all(attribute in g.content for attribute in g.attributes)
        assert all(f"{name}: {value}" in g.content for name, value in g.options)
        assert g.target.query in g.content
        assert (f"lower than {g.limit:.2f} dollars" in g.clause) == (g.limit != NO_LIMIT)


def test_no_two_goals_have_one_content():
    contents = [g.content for g in bundled_shop().goals]
    assert len(set(contents)) == len(contents)


def test_split_shares_no_content():
    goals = bundled_shop().goals
    halves = bundled_shop().split()
    assert sorted(halves["train"] + halves["test"]) == list(range(len(goals)))
    assert 0.15 < len(halves["test"]) / len(goals) < 0.25
    for side in halves.values():
        assert {goals[i].target.category for i in side} == {p.category for p in bundled_shop().products}


def test_split_keeps_goals_that_differ_in_price_together():
    goals = [
        goal(content=f"Find me {n}", clause=f", and price lower than {p}.00 dollars")
        for n in range(20)
        for p in (10, 20)
    ]
    halves = split(goals)
    assert {goals[i].content for i in halves["train"]}.isdisjoint(goals[i].content for i in halves["test"])
    assert len(halves["test"]) == 8


def test_near_duplicates_make_a_careless_shopper_earn_a_part():
    """Of the goals, many have products of the same kind and brand that pay between 0 and 1."""
    kinds = defaultdict(list)
    for p in bundled_shop().products:
        kinds[p.query].append(p)
    partly = []
    for g in bundled_shop().goals[:200]:
        pays = {round(reward(p, dict(g.options), g).total, 3) for p in kinds[g.target.query]}
        partly.append(len([x for x in pays if 0 < x < 1]))
    assert sum(count >= 2 for count in partly) > 190


# --- search


def test_search_finds_words_best_first_and_folds_plurals():
    index = Index(["red lamp", "red lamps and a lamp", "blue berries", "", "the of"])
    assert index.search("lamp") == [1, 0]
    assert index.search("BERRY!") == [2]
    assert index.search("nothing here") == index.search("the of") == index.search("") == []
    assert tokens("Men's dresses, glasses & 2-in-1 buses") == ["men", "dress", "glass", "2", "1", "buse"]


def test_ties_keep_the_order_of_the_products():
    index = Index(["lamp"] * 80)
    assert index.search("lamp") == list(range(50))
    assert index.search("lamp lamp shade", limit=7) == list(range(7))
    mixed = Index(["lamp shade", "lamp", "lamp with a shade"] * 40)
    assert mixed.search("lamp", limit=60) == [*range(1, 120, 3), *(n for n in range(120) if n % 3 != 1)][:60]


def test_a_targets_title_finds_it_first():
    for g in bundled_shop().goals[:300]:
        assert bundled_shop().found(tuple(g.target.title.lower().split(" ")))[0] == g.target


# --- pages and clicks


def test_search_page():
    p = player()
    assert p.page().text == SEARCH
    assert list(p.page().clicks) == ["search"] and p.page().search_bar
    assert p.instruction() == f"Instruction: {GOAL}"


@pytest.mark.parametrize(
    "action",
    ["hello", "", "click[nothing]", "click[search]", "click[Search]", "search[]", "Search[lamp]", "Click[search]",
     "search", "search [lamp]", " search[lamp]", "search[a [b] c]", "think[x]", "click[buy now]", "\nsearch[lamp]"],
)  # fmt: skip
def test_an_invalid_action_changes_nothing(action):
    p = player()
    assert p.step(action) == (SEARCH, 0.0, False)


def test_results_have_ten_a_page_and_fifty_in_all():
    p = player()
    first = walk(p, "search[acme lamp]")
    texts = first.split(" [SEP] ")
    assert first.startswith(f"{HEAD} [SEP] Page 1 (Total results: 50) [SEP] Next > [SEP] B")
    assert len(texts) == 5 + 30
    assert list(p.page().clicks)[:2] == ["back to search", "next >"] and len(p.page().clicks) == 12
    assert not p.page().search_bar
    second = walk(p, "click[Next >]")
    assert second.startswith(f"{HEAD} [SEP] Page 2 (Total results: 50) [SEP] < Prev [SEP] Next > [SEP] B")
    assert list(p.page().clicks)[:3] == ["back to search", "< prev", "next >"]
    assert walk(p, "click[< prev]") == first
    assert walk(p, "click[< prev]") == first  # page 1 has no such button
    assert (
        walk(p, *["click[next >]"] * 5)
        == f"{HEAD} [SEP] Page 6 (Total results: 50) [SEP] < Prev [SEP] Next >"
    )


def test_no_hits():
    p = player()
    assert walk(p, "search[zzz]") == f"{HEAD} [SEP] Page 1 (Total results: 0) [SEP] Next >"
    assert walk(p, "search[ ]") == f"{HEAD} [SEP] Page 1 (Total results: 0) [SEP] Next >"


def test_words_of_the_engine():
    p = player()
    assert "Total results: 50" in walk(p, "search[<r>]")
    assert walk(p, "search[<r>]") == walk(p, "search[<R>]")  # a fixed sample
    assert "Total results: 60" in walk(p, "search[<q> floor lamps]")
    assert "Total results: 1)" in walk(p, "search[<c> rugs]")
    with pytest.raises(IndexError):
        p.step("search[<c>]")


def test_item_page_and_what_can_be_clicked():
    p = player()
    assert walk(p, "search[floor lamp brass]", "click[B000000001]") == LAMP_PAGE
    assert list(p.page().clicks) == [
        *("back to search", "< prev", "description", "features", "reviews", "buy now"),
        *("black", "navy blue", "small", "x-large"),
    ]
    assert p.instruction() == f"Instruction:{GOAL}"  # as the public server: no blank off the first page


def test_an_option_does_not_change_the_page():
    p = player()
    assert walk(p, "search[floor lamp brass]", "click[b000000001]", "click[Black]") == LAMP_PAGE
    assert p.options == {"color": "black"}
    assert walk(p, "click[navy blue]", "click[small]") == LAMP_PAGE
    assert p.options == {"color": "navy blue", "size": "small"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("description", " [SEP] A lamp that lasts."),
        ("features", " [SEP] long lasting bulb [SEP] for living rooms"),
        ("reviews", ""),
    ],
)
def test_sub_pages_keep_the_options(name, content):
    p = player()
    walk(p, "search[floor lamp brass]", "click[b000000001]", "click[black]")
    assert walk(p, f"click[{name}]") == f"{HEAD} [SEP] < Prev{content}"
    assert list(p.page().clicks) == ["back to search", "< prev"]
    assert walk(p, "click[buy now]") == f"{HEAD} [SEP] < Prev{content}"
    assert walk(p, "click[< prev]") == LAMP_PAGE
    assert p.options == {"color": "black"}


@pytest.mark.parametrize("leave", ["click[back to search]", "click[< prev]", "search[floor lamp brass]"])
def test_leaving_the_product_clears_the_options(leave):
    p = player()
    walk(p, "search[floor lamp brass]", "click[b000000001]", "click[black]", leave)
    assert p.options == {}
    walk(p, "search[floor lamp brass]", "click[b000000001]")
    assert p.step("click[buy now]")[1] == pytest.approx(3 / 5)


def test_previous_of_a_product_is_the_page_of_results_it_came_from():
    p = player()
    second = walk(p, "search[acme lamp]", "click[next >]")
    asin = second.split(" [SEP] ")[6]
    assert walk(p, f"click[{asin}]", "click[< prev]") == second


def test_attributes_page_is_not_offered():
    p = player()
    assert walk(p, "search[floor lamp brass]", "click[b000000001]", "click[attributes]") == LAMP_PAGE


def test_buying():
    p = player()
    walk(p, "search[floor lamp brass]", "click[b000000001]", "click[small]", "click[black]")
    text, paid, done = p.step("click[Buy Now]")
    assert (paid, done) == (1.0, True)
    assert text == DONE.format(options='{"color": "black", "size": "small"}', reward="1.0")
    assert not p.page().clicks and not p.page().search_bar
    with pytest.raises(LookupError):
        p.instruction()


def test_after_the_end_it_still_answers_and_pays_again():
    p = player()
    walk(p, "search[floor lamp brass]", "click[b000000001]")
    bought = p.step("click[buy now]")[0]
    assert p.step("click[buy now]") == (bought, 0.0, False)
    walk(p, "search[floor lamp brass]", "click[b000000001]", "click[black]")
    assert p.step("click[buy now]")[1:] == (pytest.approx(4 / 5), True)


def test_of_two_options_with_one_value_the_later_is_clicked():
    p = player(1)
    walk(p, "search[wool rug]", "click[b200000000]", "click[red]")
    assert p.options == {"finish": "red"}


def test_empty_texts():
    p = player(1)
    rug = walk(p, "search[wool rug]", "click[b200000000]", "click[description]")
    assert rug.endswith("Back to Search [SEP] < Prev")  # an empty description is no text
    assert walk(p, "click[< prev]", "click[features]").endswith("< Prev [SEP] ")  # an empty bullet is one
    assert joined(["a", "", " ", "\n ", " b "]) == "a [SEP]  [SEP] b"


def test_signs_of_html_stay_as_they_are_but_in_the_options_bought():
    odd = product(title="<b>Rug</b> & more", options={"size": ("it's <5>",)})
    assert "<b>Rug</b> & more" in results_page("g", [odd], 1).text
    p = player()
    p.view, p.product, p.options = "done", odd, {"size": "it's <5>"}
    assert '{"size": "it\\u0027s \\u003c5\\u003e"}' in p.page().text


def test_a_copy_lives_its_own_life():
    p = player()
    walk(p, "search[floor lamp brass]", "click[b000000001]", "click[black]")
    q = p.copy()
    walk(q, "click[small]")
    assert (p.options, q.options) == ({"color": "black"}, {"color": "black", "size": "small"})
    assert q.step("click[buy now]")[1] == 1.0
    assert p.page().text == LAMP_PAGE and p.step("click[buy now]")[1] == pytest.approx(4 / 5)


@given(st.text(alphabet="ab[]\n S", max_size=12))
def test_an_action_is_read_as_the_original_reads_it(action: str) -> None:
    match = re.match(r"(.+)\[(.+)\]", action)
    assert parsed(action) == ((match[1], match[2].lower()) if match else ("", ""))


def test_an_action_of_any_length_is_read_in_no_time() -> None:
    assert parsed("search" + "[" * 4_000_000) == ("", "")
    assert parsed(f"search[{'a' * (MAX_ACTION - 8)}]")[0] == "search"
    assert parsed(f"search[{'a' * MAX_ACTION}]") == ("", "")
