"""How the specs read the servers' answers and name tasks, and how an environment is added."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcts_utils.envs import specs, task_id
from mcts_utils.envs.specs import env_spec, names
from mcts_utils.prompts import opening_messages
from mcts_utils.rollouts.steps import is_invalid, is_look, is_refused
from mcts_utils.types import EnvError, InputError, Step, StepResult, Task

GREETINGS = {
    "babyai": "This is environment BabyAI.",
    "sciworld": "This is environment ScienceWorld.",
    "textcraft": "This is environment TextCraft.",
    "webshop": [42067199, 36402774],
}
PAGE = "WebShop [SEP] Instruction: [SEP] Find me lamps with color: red, and price lower than {}.00 dollars [SEP] Search"


def test_all_are_there_and_complete() -> None:
    tools = {"academia", "movie", "sheet", "todo", "weather"}
    assert set(names()) == {*GREETINGS, *tools, "alfworld", "maze", "sqlgym", "wordle"}
    for name in names():
        found = env_spec(name)
        assert found.name == name
        greeted = {other for other, answer in GREETINGS.items() if found.greets(answer)}
        # The tool servers and SQLGym say no more than WebShop does.
        assert greeted == (
            {name} if name in GREETINGS else {"webshop"} if name in {*tools, "sqlgym"} else set()
        )
        for prompt in ("full", "brief"):
            first, second = opening_messages(Task(name, 0, "x", "the opening"), prompt)
            assert first.role == "system" and second.content == "the opening"
        assert "Thought: " in found.full_prompt and "Action: " in found.full_prompt
        assert len(found.brief_prompt) < 40 < len(found.full_prompt)


def test_the_bundled_models_prompt_is_the_one_it_was_trained_with() -> None:
    assert env_spec("textcraft").brief_prompt == "Craft the goal."


MAZE = """
from mcts_utils.envs.specs.base import EnvSpec


class Maze(EnvSpec):
    name, title = "cave", "Maze"
    full_prompt = "Find the way. Thought: ... Action: ..."
    brief_prompt = "Out."


SPEC = Maze()
"""


@pytest.fixture
def maze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A file of a further environment, in a folder beside the specs'."""
    (tmp_path / "cave.py").write_text(MAZE)
    monkeypatch.setattr(specs, "__path__", [*specs.__path__, str(tmp_path)])
    for cached in (names, env_spec):
        cached.cache_clear()
    yield
    for cached in (names, env_spec):
        cached.cache_clear()


def test_a_further_environment_is_one_file(maze: None) -> None:
    assert "cave" in names()
    found = env_spec("cave")
    task = found.started({"observation": "You are in a maze.", "done": False, "reward": 0}, 3).task
    assert (task.env, task.index, task.opening) == ("cave", 3, "You are in a maze.")
    assert task.id == task_id("cave", "You are in a maze.")
    assert found.result({"observation": "x", "reward": 1, "done": True}) == StepResult("x", 1.0, True)
    assert opening_messages(task, "brief")[0].content == "Out."


def test_an_unknown_environment_is_bad_input() -> None:
    with pytest.raises(InputError, match="'chess' is unknown; known: academia, .*, webshop, wordle"):
        env_spec("chess")


def test_scienceworlds_tasks_are_named_by_task_and_variation() -> None:
    answer = {
        "task_name": "melt",
        "var_num": 4,
        "task_description": "Your task is to melt.",
        "observation": "A room.",
    }
    started = env_spec("sciworld").started(answer, 34)
    assert started.task == Task("sciworld", 34, "sciworld:melt:4", "Your task is to melt.\nA room.")
    assert started.shown == "A room."
    # A reference tree has only the opening and the index.
    assert task_id("sciworld", started.task.opening, 34) == started.task.id
    assert task_id("sciworld", "", 0) == "sciworld:boil:0"
    assert task_id("sciworld", "", 4638) == "sciworld:identify-life-stages-2:9"
    for index in (-1, 4639):
        with pytest.raises(EnvError, match=f"no game {index}"):
            task_id("sciworld", "", index)


def test_webshops_tasks_are_named_without_their_price_limit() -> None:
    assert task_id("webshop", PAGE.format(60)) == task_id("webshop", PAGE.format(170))
    assert task_id("webshop", PAGE.format(60)) != task_id("webshop", PAGE.format(60).replace("red", "blue"))
    assert task_id("webshop", "Instruction: Find me lamps with color: red") == task_id(
        "webshop", PAGE.format(20)
    )
    with pytest.raises(EnvError, match="Instruction"):
        task_id("webshop", "Thank you for shopping with us!")


def test_babyais_tasks_are_named_by_level_seed_and_mission() -> None:
    first = task_id("babyai", "Your goal: go to the red ball\nA room.", 41)
    assert first.startswith("babyai:2:1:")
    assert task_id("babyai", "Your goal: go to the red ball\nAnother view.", 41) == first
    assert task_id("babyai", "Your goal: go to the red ball\nA room.", 1) != first
    assert task_id("babyai", "Your goal: go to the red box\nA room.", 41) != first
    with pytest.raises(EnvError, match="Your goal"):
        task_id("babyai", "A room.", 0)


def science(score: float, done: bool = False) -> dict[str, object]:
    return {"observation": "x", "reward": 3, "score": score, "done": done}


@pytest.mark.parametrize(
    ("env", "answer", "expected"),
    [
        ("sciworld", science(0), StepResult("x", 0.0, False)),
        ("sciworld", science(73), StepResult("x", 0.73, False)),
        ("sciworld", science(100, True), StepResult("x", 1.0, True)),
        ("sciworld", science(-100, True), StepResult("x", 0.0, True, True)),
        ("sciworld", science(-5), StepResult("x", 0.0, True, True)),
        (
            "webshop",
            {"state": "page", "reward": 0.5, "done": True, "info": None},
            StepResult("page", 0.5, True),
        ),
        (
            "babyai",
            {"observation": "x", "reward": 0.9, "score": 0.9, "done": True},
            StepResult("x", 0.9, True),
        ),
        (
            "babyai",
            {"observation": "x", "reward": 0.4, "score": 1.2, "done": False},
            StepResult("x", 1.0, False),
        ),
    ],
)
def test_rewards_are_the_score_so_far(env: str, answer: object, expected: StepResult) -> None:
    assert env_spec(env).result(answer) == expected


@pytest.mark.parametrize(
    ("env", "answer", "message"),
    [
        ("sciworld", science(101), "score 101"),
        ("sciworld", science(float("nan")), "score nan"),
        ("sciworld", {"observation": "x", "reward": 1, "done": False}, "'score'"),
        ("webshop", {"observation": "x", "reward": 0.0, "done": False}, "'state'"),
        ("webshop", {"state": "x", "reward": 2, "done": False}, "reward 2"),
        ("webshop", [], "'reward'"),
        ("babyai", {"observation": "x", "score": True, "done": False}, "'score'"),
        ("babyai", None, "'score'"),
    ],
)
def test_an_answer_that_says_something_else_is_an_error(env: str, answer: object, message: str) -> None:
    with pytest.raises(EnvError, match=message):
        env_spec(env).result(answer)


@pytest.mark.parametrize(
    ("env", "observation", "refused"),
    [
        ("textcraft", "Could not find blue dye", True),
        ("textcraft", "Wrong item format: lapis lazuli", True),
        ("textcraft", "Got 1 bamboo", False),
        ("sciworld", "No known action matches that input.", True),
        ("sciworld", "Ambiguous request: Please enter the number for the action you intended:\n0:\tx", True),
        ("sciworld", "The door is not open.", True),
        ("sciworld", "You move to the kitchen.", False),
        ("webshop", "Instruction: [SEP] Find me lamps [SEP] Back to Search", False),
        ("babyai", "The action is not recognized. Please check valid actions.\nAvailable actions: []", True),
        ("babyai", "There is a barrier in front of you, you can't move forward.", True),
        ("babyai", "You cannot pickup red ball 1, as there is no path leading to it.", True),
        ("babyai", "You cannot see any objects within sight.The room has walls around you.", False),
    ],
)
def test_refusals_are_told_from_answers(env: str, observation: str, refused: bool) -> None:
    assert is_refused(env, Step("Action: x", "x", observation, 0.0)) is refused


@pytest.mark.parametrize(
    ("env", "action", "looks"),
    [
        ("textcraft", "inventory", True),
        ("textcraft", "get 1 bamboo", False),
        ("sciworld", "look at table", True),
        ("sciworld", "pick up table", False),
        ("webshop", "click[description]", False),
        ("babyai", "check available actions", True),
        ("babyai", "turn left", False),
    ],
)
def test_looks_are_told_from_acts(env: str, action: str, looks: bool) -> None:
    assert is_look(env, Step("", action, "", 0.0)) is looks


@pytest.mark.parametrize(
    ("action", "invalid"),
    [
        ("buy now", True),
        ("", True),
        ("Click[buy now]", True),
        ("click[buy now]", False),
        ("search[a [b]]", False),
    ],
)
def test_a_shop_that_shows_the_same_page_is_not_taken_to_carry_out_everything(action, invalid):
    step = Step(f"Action: {action}", action, "Instruction: [SEP] Find me lamps", 0.0)
    assert is_invalid("webshop", step) is invalid and not is_refused("webshop", step)
    assert not is_invalid("textcraft", step)


def test_a_webshop_page_is_compared_without_the_limit_that_a_session_draws():
    page = (
        "Instruction: [SEP] buy a mug, and price lower than 40.00 dollars [SEP] Back to Search [SEP] $12.00"
    )
    other = page.replace("40.00", "1,050.50")
    assert env_spec("webshop").comparable(page) == env_spec("webshop").comparable(other) != page
    assert env_spec("textcraft").comparable(page) == page
