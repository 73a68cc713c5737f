"""Reading WebShop's own data files: small invented ones in their format."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from mcts_utils.servers.webshop import official
from mcts_utils.servers.webshop.engine import ShopSession
from mcts_utils.servers.webshop.models import NO_LIMIT
from mcts_utils.servers.webshop.official import DataError, entries, load_shop
from mcts_utils.servers.webshop.reward import reward

MUG: dict[str, Any] = {
    "asin": "B000000001",
    "name": "Acme Mug",
    "full_description": "A mug.",
    "small_description": ["holds tea", "holds coffee"],
    "pricing": "$12.50",
    "customization_options": {"Color": [{"value": " Red/White "}, {"value": "BLACK"}], "Size": None},
    "query": " Tea Mugs ",
    "category": "garden",
    "product_category": "Home › Kitchen › Mugs",
    "images": ["x"],
    "brand": "ignored",
}
KNOWN = {"attributes": ["easy clean", "dishwasher safe"], "instruction": "Find me easy clean mugs"}
KNOWN_MUG = {**KNOWN, "instruction_attributes": ["easy clean"]}


def write(folder: Path, items: Any, known: Any, human: Any = None) -> Path:
    (folder / "items_shuffle.json").write_text(json.dumps(items), encoding="utf-8")
    (folder / "items_ins_v2.json").write_text(json.dumps(known), encoding="utf-8")
    if human is not None:
        (folder / "items_human_ins.json").write_text(json.dumps(human), encoding="utf-8")
    return folder


def mug(number: int, **changes: Any) -> dict[str, Any]:
    return {**MUG, "asin": f"B{number:09}", "name": f"Acme Mug {number}", **changes}


def test_product_as_the_loader_reads_it(tmp_path):
    shop = load_shop(write(tmp_path, [MUG], {MUG["asin"]: KNOWN_MUG}))
    product = shop.products[0]
    assert (product.title, product.description, product.query) == ("Acme Mug", "A mug.", "tea mugs")
    assert product.options == {
        "color": ("red | white", "black")
    }  # lower case; a slash apart; no empty option
    assert product.bullets == ("holds tea", "holds coffee")
    assert (product.price, product.price_tag) == (12.5, "$12.5")
    assert product.attributes == ("easy clean", "dishwasher safe")


def test_synthetic_goals_are_all_combinations_of_options(tmp_path):
    options = {"Size": [{"value": "S"}, {"value": "L"}], "Color": [{"value": "red"}, {"value": "blue"}]}
    items = [mug(1, customization_options=options), mug(2, customization_options=None)]
    shop = load_shop(write(tmp_path, items, {item["asin"]: KNOWN_MUG for item in items}))
    contents = sorted(goal.content for goal in shop.goals)
    assert contents == [
        "Find me easy clean mugs",
        *(
            f"Find me easy clean mugs with color: {color}, and size: {size}"
            for color in ("blue", "red")
            for size in ("l", "s")
        ),
    ]
    for goal in shop.goals:
        assert goal.clause == f", and price lower than {goal.limit:.2f} dollars" and goal.limit in (
            30.0,
            40.0,
            50.0,
        )
        assert goal.attributes == ("easy clean",)
        assert reward(goal.target, dict(goal.options), goal).total == 1.0


def test_order_and_limits_are_drawn_as_the_original_draws_them(tmp_path):
    """Seed 233: two of the next four multiples of ten per product in file order; then one shuffle of all goals."""
    items = [mug(n, pricing=f"${n}.50", customization_options=None) for n in range(40)]
    shop = load_shop(write(tmp_path, items, {item["asin"]: KNOWN_MUG for item in items}))
    rng = random.Random(233)
    limits = []
    for n in range(40):
        above = [10.0 * step for step in range(1, 100) if 10.0 * step > n + 0.5][:4]
        limits.append(max(rng.sample(above, 2)))
    order = list(range(40))
    random.Random(233).shuffle(order)
    assert [(goal.target.asin, goal.limit) for goal in shop.goals] == [(f"B{n:09}", limits[n]) for n in order]


@pytest.mark.parametrize(
    ("pricing", "price", "tag"),
    [
        (None, 100.0, "$100.0"),
        ("", 100.0, "$100.0"),
        ("$1,234.56", 1234.56, "$1234.56"),
        ("$10.00 - $20.00", None, "$10.0 to $20.0"),
        ("$10.00 - $20.00 - $30.00", None, "$10.0 to $20.0"),
    ],
)
def test_prices(tmp_path, pricing, price, tag):
    item = mug(1, pricing=pricing, customization_options=None)
    write(tmp_path, [item], {item["asin"]: KNOWN_MUG})
    product, again = load_shop(tmp_path).products[0], load_shop(tmp_path).products[0]
    assert product.price_tag == tag and again.price == product.price  # drawn once for ever
    assert product.price == price if price else 10 <= product.price <= 20


def test_a_price_without_two_limits_above_it_has_no_clause(tmp_path):
    item = mug(1, pricing="$985.00", customization_options=None)
    goal = load_shop(write(tmp_path, [item], {item["asin"]: KNOWN_MUG})).goals[0]
    assert (goal.text, goal.limit) == ("Find me easy clean mugs", NO_LIMIT)


def test_products_that_are_skipped(tmp_path):
    items = [mug(1), mug(1, name="again"), mug(2, asin="nan"), mug(3, asin="B1234567890"), mug(4)]
    known = {"B000000001": KNOWN_MUG, "B000000004": {"attributes": []}}
    shop = load_shop(write(tmp_path, items, known))
    assert [p.title for p in shop.products] == ["Acme Mug 1", "Acme Mug 4"]
    assert {goal.target.asin for goal in shop.goals} == {"B000000001"}  # the other has no instruction


def test_a_product_without_an_entry_has_a_dummy_attribute(tmp_path):
    shop = load_shop(write(tmp_path, [mug(1), mug(2)], {"B000000001": KNOWN_MUG}))
    assert shop.products[1].attributes == ("DUMMY_ATTR",)


def test_bullets_may_be_one_text(tmp_path):
    item = mug(1, small_description="one")
    assert load_shop(write(tmp_path, [item], {item["asin"]: KNOWN_MUG})).products[0].bullets == ("one",)


def test_human_goals(tmp_path):
    human = {
        "B000000001": [
            {
                "instruction": "i want a red mug.",
                "instruction_attributes": ["easy clean"],
                "instruction_options": ["red"],
            },
            {"instruction": "nothing to check", "instruction_attributes": [], "instruction_options": []},
        ],
        "B000000009": [
            {"instruction": "not there", "instruction_attributes": ["x"], "instruction_options": []}
        ],
    }
    shop = load_shop(write(tmp_path, [mug(1)], {"B000000001": KNOWN_MUG}, human), human=True)
    assert [goal.content for goal in shop.goals] == ["i want a red mug"]
    goal = shop.goals[0]
    assert goal.options == (("", "red"),) and goal.attributes == ("easy clean",)
    assert reward(goal.target, {"color": "red | white"}, goal).total == 1.0
    assert reward(goal.target, {"color": "black"}, goal).total == pytest.approx(2 / 3)


def test_a_player_in_an_official_shop(tmp_path):
    shop = load_shop(write(tmp_path, [mug(1), mug(2, name="Other Cup")], {"B000000001": KNOWN_MUG}))
    goal = next(g for g in shop.goals if dict(g.options)["color"] == "red | white")
    player = ShopSession(shop, goal)
    assert "Total results: 2" in player.step("search[acme mugs holding tea]")[0]
    player.step("click[b000000001]")
    player.step("click[red | white]")
    assert player.step("click[buy now]")[1:] == (1.0, True)


# --- whose indices these are


def test_kind_is_agentgym_for_its_6910_goals_alone(tmp_path, monkeypatch):
    items = [mug(n) for n in range(5)]
    write(tmp_path, items, {item["asin"]: KNOWN_MUG for item in items})
    assert load_shop(tmp_path).kind.startswith("agent-r-webshop-")  # 10 goals
    monkeypatch.setattr(official, "AGENTGYM_GOALS", 10)
    assert load_shop(tmp_path).kind == "agentgym"
    assert load_shop(tmp_path, limit=0).kind.startswith("agent-r-webshop-")


def test_only_the_first_products_are_read(tmp_path):
    items = [mug(n) for n in range(5)]
    write(tmp_path, items, {item["asin"]: KNOWN_MUG for item in items})
    path = tmp_path / "items_shuffle.json"
    path.write_text(path.read_text()[:-40])  # what comes after is not even parsed
    assert len(load_shop(tmp_path, limit=3).products) == 3
    with pytest.raises(DataError, match="element 4"):
        load_shop(tmp_path)


def test_files_of_a_thousand_are_taken_where_the_long_ones_are_not_there(tmp_path):
    write(tmp_path, [MUG], {MUG["asin"]: KNOWN_MUG})
    for name in ("items_shuffle", "items_ins_v2"):
        (tmp_path / f"{name}.json").rename(tmp_path / f"{name}_1000.json")
    assert len(load_shop(tmp_path).products) == 1


def test_elements_are_read_across_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(official, "CHUNK", 7)
    path = tmp_path / "x.json"
    rows = [{"a": "x" * 30, "b": [1, 2, {"c": "]},{"}]}, {}, {"d": "é›"}]
    path.write_text(json.dumps(rows, indent=3, ensure_ascii=False), encoding="utf-8")
    assert list(entries(path)) == rows


# --- what is broken is named


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None, "full_description": None}, None),  # tolerated
        ({"query": None}, "items_shuffle.json: product 1: AttributeError"),
        ({"pricing": "$1.2.3"}, "items_shuffle.json: product 1: ValueError: could not convert"),
        ({"customization_options": {"Color": ["red"]}}, "items_shuffle.json: product 1: TypeError"),
        ({"asin": None}, "items_shuffle.json: product 1: TypeError"),
    ],
)
def test_a_broken_product_is_named_by_its_row(tmp_path, change, message):
    write(tmp_path, [mug(1), mug(2, **change)], {"B000000001": KNOWN_MUG})
    if message is None:
        assert len(load_shop(tmp_path).products) == 2
    else:
        with pytest.raises(DataError) as refusal:
            load_shop(tmp_path)
        assert message in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_missing_field_is_named(tmp_path):
    item = mug(1)
    del item["product_category"]
    write(tmp_path, [item], {})
    with pytest.raises(DataError, match="product 0: no field 'product_category'"):
        load_shop(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("items_shuffle.json", None, "no such file"),
        ("items_ins_v2.json", None, "no such file"),
        ("items_human_ins.json", None, "no such file"),
        ("items_shuffle.json", b"{}", "not a JSON array"),
        ("items_shuffle.json", b"", "not a JSON array"),
        ("items_shuffle.json", b"[{},", "product 0: no field 'asin'"),
        ("items_shuffle.json", b"[\xff]", "utf-8"),
        ("items_shuffle.json", b"[]", "no goal for its 0 products"),
        ("items_ins_v2.json", b"[]", "not a JSON object, but a list"),
        ("items_ins_v2.json", b"{", "Expecting"),
    ],
)
def test_a_broken_file_is_named(tmp_path, name, content, message):
    write(tmp_path, [MUG], {MUG["asin"]: KNOWN_MUG}, {})
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as refusal:
        load_shop(tmp_path, human=name == "items_human_ins.json")
    assert name in str(refusal.value) and "\n" not in str(refusal.value)
