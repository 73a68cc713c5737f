"""The TextCraft world: its data, its goals and split, and the rules of one session."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from mcts_utils.servers.textcraft import make_recipes
from mcts_utils.servers.textcraft.world import MAX_GOAL_DEPTH, Session, load_world, text

WORLD = load_world()
# A change of either changes what a bundled model was trained on, and every stored result's indices.
GOALS_SHA256 = "54933d7c4443529479702674935cf3158b046cdfbe1ae117b176cfd1cc3d8cfc"
OPENINGS_SHA256 = "d5900f68bb29406916a80a3abb70034f8bcf587a1f1ad0dc227739183bb372ff"
REFUSALS = ("Could not", "Wrong item format")


def sha256(lines: list[str], end: str) -> str:
    return hashlib.sha256(end.join(lines).encode()).hexdigest()


def test_recipes_file_is_what_the_script_writes() -> None:
    import minecraft_data

    written = make_recipes.OUTPUT.read_text(encoding="utf-8")
    assert make_recipes.file_text(make_recipes.build(minecraft_data(make_recipes.VERSION))) == written


def test_goals_keep_their_order() -> None:
    assert sha256(list(WORLD.goals), "\n") == GOALS_SHA256


def test_openings_keep_their_text() -> None:
    assert sha256([WORLD.opening(goal) for goal in WORLD.goals], "\n\n") == OPENINGS_SHA256


def test_a_world_loaded_again_shows_the_same_commands() -> None:
    again = load_world.__wrapped__()
    assert again is not WORLD
    assert again.goals == WORLD.goals
    assert all(again.commands(goal) == WORLD.commands(goal) for goal in reversed(WORLD.goals))


def test_goals_are_many_distinct_and_of_every_depth() -> None:
    assert len(WORLD.goals) >= 500
    assert len(set(WORLD.goals)) == len(WORLD.goals)
    assert {WORLD.depth[goal] for goal in WORLD.goals} == set(range(1, MAX_GOAL_DEPTH + 1))


def test_split_is_disjoint_and_covers_all() -> None:
    split = WORLD.split()
    train, test = set(split["train"]), set(split["test"])
    assert train & test == set()
    assert train | test == set(range(len(WORLD.goals)))
    for half in (train, test):
        assert {WORLD.depth[WORLD.goals[i]] for i in half} == set(range(1, MAX_GOAL_DEPTH + 1))


def test_no_recipe_has_ingredients_that_one_item_could_meet_twice() -> None:
    for recipe in (r for ways in WORLD.recipes.values() for r in ways):
        members = [m for name, _ in recipe.inputs for m in WORLD.members(name)]
        assert len(members) == len(set(members)), recipe


def test_a_tag_is_met_by_any_member_and_by_no_other_item() -> None:
    for wood in ("oak", "crimson"):
        session = Session(WORLD, "ladder", {f"{wood}_planks": 2})
        assert session.step(f"craft 4 stick using 2 {wood} planks") == ("Crafted 4 minecraft:stick", 0, False)
    session = Session(WORLD, "ladder", {"oak_log": 2})
    assert session.step("craft 4 stick using 2 oak log")[0].startswith("Could not find a valid recipe for ")
    assert session.step("craft 4 stick using 2 planks")[0].startswith("Could not find enough items to craft ")


def test_one_ingredient_named_twice_is_no_recipe() -> None:
    session = Session(WORLD, "blue_dye", {"cornflower": 2})
    assert session.step("craft 1 blue dye using 1 cornflower, 1 cornflower")[0].startswith(
        "Could not find a valid recipe"
    )
    assert session.inventory == {"cornflower": 2}


def test_missing_items_are_told_before_a_wrong_recipe() -> None:
    enough = "Could not find enough items to craft minecraft:blue_dye"
    assert Session(WORLD, "ladder").step("craft 1 blue dye using 1 stick")[0] == enough
    assert Session(WORLD, "ladder", {"stick": 1}).step("craft 1 blue dye using 1 stick")[0] != enough


names = st.sampled_from(sorted(WORLD.items | set(WORLD.tags)))
counts = st.integers(0, 9)
parts = st.builds(lambda n, name: f"{n} {text(name)}", counts, names)
actions = st.one_of(
    st.builds(lambda part: f"get {part}", parts),
    st.builds(
        lambda made, used: f"craft {made} using {', '.join(used)}",
        parts,
        st.lists(parts, min_size=1, max_size=3),
    ),
    st.sampled_from([r.line() for ways in WORLD.recipes.values() for r in ways]),
    st.just("inventory"),
    st.text(max_size=20),
)
stocks = st.dictionaries(names, st.integers(1, 9), max_size=6)


@given(goal=st.sampled_from(WORLD.goals), stock=stocks, played=st.lists(actions, max_size=8))
def test_nothing_goes_negative_and_refused_actions_change_nothing(
    goal: str, stock: dict, played: list[str]
) -> None:
    session = Session(WORLD, goal, dict(stock))
    for action in played:
        before = dict(session.inventory)
        observation, reward, done = session.step(action)
        assert min(session.inventory.values(), default=0) >= 0
        if observation.startswith((*REFUSALS, "Inventory: ")):
            assert (session.inventory, reward, done) == (before, 0, False)
        assert done == bool(reward)
        if done:
            assert session.inventory[goal] > before.get(goal, 0)


@given(goal=st.sampled_from(WORLD.goals), stock=stocks, data=st.data())
def test_a_listed_command_uses_what_it_says_and_makes_what_it_says(
    goal: str, stock: dict, data: st.DataObject
) -> None:
    recipe = data.draw(st.sampled_from([r for ways in WORLD.recipes.values() for r in ways]))
    used = [(data.draw(st.sampled_from(WORLD.members(name))), count) for name, count in recipe.inputs]
    session = Session(WORLD, goal, {**stock, **dict(used)})
    before = dict(session.inventory)
    listed = ", ".join(f"{count} {text(item)}" for item, count in used)
    observation, reward, done = session.step(f"craft {recipe.count} {text(recipe.output)} using {listed}")
    assert observation == f"Crafted {recipe.count} minecraft:{recipe.output}"
    assert (reward, done) == ((1, True) if recipe.output == goal else (0, False))
    expected = {item: n - dict(used).get(item, 0) for item, n in before.items()}
    expected[recipe.output] = expected.get(recipe.output, 0) + recipe.count
    assert session.inventory == {item: n for item, n in expected.items() if n}
