"""The requests of conformance.py and what AgentGym's public servers answer to them. No test by itself.

Texts that depend on a server's data (goals, rooms, products) are patterns; statuses, fields and errors are not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Every:
    """A list of any length, all of whose values fit."""

    pattern: Any


@dataclass(frozen=True)
class Same:
    """What was kept under that name from an earlier answer."""

    name: str


@dataclass(frozen=True)
class Request:
    """One request and the answer that is expected; conformance.differences says what can be expected.

    `<name>` in the content stands for what was kept under that name, so does a value that is all "<name>".
    """

    label: str
    method: str
    path: str
    content: Any  # JSON body, or query of a GET; None is none; bytes are sent as they are
    status: int | tuple[int, ...]
    expected: Any
    keep: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)  # name -> value, from the answer


FAILED = "Internal Server Error"
SEP = r" \[SEP\] "


def post(label: str, path: str, content: Any, expected: Any, status: Any = 200, **keep: Any) -> Request:
    return Request(label, "POST", path, content, status, expected, keep)


def get(label: str, path: str, content: Any, expected: Any, status: Any = 200, **keep: Any) -> Request:
    return Request(label, "GET", path, content, status, expected, keep)


def text(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def error(pattern: str) -> dict[str, Any]:
    return {"error": text(pattern)}


def complaint(kind: str, *where: str | int) -> dict[str, Any]:
    """FastAPI's answer with status 422 about one field."""
    return {"detail": [{"type": kind, "loc": list(where), ...: ...}]}


def not_valid(number: int) -> dict[str, str]:
    return {"error": f"The id {number} is not valid."}


# ---- TextCraft

CRAFTING = text(r"Crafting commands:\n(craft \d+ [^\n]+ using \d+ [^\n]+\n)+\nGoal: craft .+\.")
CRAFT_STATE = {"id": int, "observation": CRAFTING, "done": False, "reward": 0}
BARE = "Inventory: You are not carrying anything."


def crafting(*pairs: tuple[str, Any]) -> list[Request]:
    return [
        post(f"step {action!r}", "/step", {"id": "<id>", "action": action}, said(observation))
        for action, observation in pairs
    ]


def said(observation: Any) -> dict[str, Any]:
    return {"observation": observation, "reward": 0, "done": False}


TEXTCRAFT = [
    get("hello", "/", None, "This is environment TextCraft."),
    post("create", "/create", {}, CRAFT_STATE, id=lambda answer: answer["id"]),
    post("create without a body", "/create", None, complaint("missing", "body"), 422),
    get("observation", "/observation", {"id": "<id>"}, CRAFTING),
    post("reset", "/reset", {"id": "<id>", "data_idx": 0}, {**CRAFT_STATE, "id": Same("id")}),
    *crafting(
        ("get 1 blue orchid", "Got 1 blue orchid"),
        ("get 1 blue dye", "Could not find blue dye"),
        ("get 1 unicorn", "Could not find unicorn"),
        ("get 1 planks", "Could not find planks"),
        ("get blue orchid", "Could not execute get blue orchid"),
        ("get 0 lily of the valley", "Got 0 lily of the valley"),
        ("inventory", "Inventory: [blue orchid] (1) [lily of the valley] (0) "),
    ),
    get(
        "its observation",
        "/observation",
        {"id": "<id>"},
        "Inventory: [blue orchid] (1) [lily of the valley] (0) ",
    ),
    get("detail", "/detail", {"id": "<id>"}, {**said(text("Inventory: .+")), "deleted": False}),
    get("commands", "/commands", {"id": "<id>"}, FAILED, 500),
    get("goal", "/goal", {"id": "<id>"}, FAILED, 500),
    *crafting(
        ("dance", "Could not execute dance"),
        ("", "Could not execute "),
        ("Get 1 blue orchid", "Could not execute Get 1 blue orchid"),
        ("inventory now please", text(r"Inventory: \[blue orchid\] \(1\) .*")),
        ("get 1 cornflower.", "Could not find cornflower."),
        ("craft 1 blue dye using 1 lapis lazuli", "Could not find enough items to craft minecraft:blue_dye"),
        (
            "craft 1 blue dye using 1 blue orchid",
            text("Could not find a valid recipe for ItemTagWithCount.*'minecraft:blue_dye'.*"),
        ),
        ("craft 1 blue dye using lapis lazuli", "Wrong item format: lapis lazuli"),
        ("craft 1 blue dye", "Could not execute craft 1 blue dye"),
        ("get 1 cornflower", "Got 1 cornflower"),
        ("craft 5 blue dye using 1 cornflower", "Crafted 1 minecraft:blue_dye"),
    ),
    post("reset without an index", "/reset", {"id": "<id>"}, CRAFT_STATE),
    post("reset beyond the last", "/reset", {"id": "<id>", "data_idx": 544}, CRAFT_STATE),
    post("reset before the first", "/reset", {"id": "<id>", "data_idx": -1}, CRAFT_STATE),
    post("reset to null", "/reset", {"id": "<id>", "data_idx": None}, error("unsupported operand type.*")),
    post("step of nobody", "/step", {"id": 999999, "action": "inventory"}, not_valid(999999)),
    post("reset of nobody", "/reset", {"id": 999999, "data_idx": 0}, not_valid(999999)),
    get("observation of nobody", "/observation", {"id": 999999}, not_valid(999999)),
    post("no action", "/step", {"id": "<id>"}, complaint("missing", "body", "action"), 422),
    post("no id", "/step", {"action": "inventory"}, complaint("missing", "body", "id"), 422),
    post(
        "id as text",
        "/step",
        {"id": "abc", "action": "inventory"},
        complaint("int_parsing", "body", "id"),
        422,
    ),
    post(
        "another's id field",
        "/step",
        {"env_idx": 0, "action": "inventory"},
        complaint("missing", "body", "id"),
        422,
    ),
    get("no such route", "/nope", None, {"detail": "Not Found"}, 404),
    get("wrong method", "/step", None, {"detail": "Method Not Allowed"}, 405),
    post("close", "/close", {"id": "<id>"}, True),
    post("close twice", "/close", {"id": "<id>"}, False),
    post(
        "step after close", "/step", {"id": "<id>", "action": "inventory"}, error("The id .* is not valid.")
    ),
    post("reset after close", "/reset", {"id": "<id>", "data_idx": 0}, error("The id .* is not valid.")),
]

# ---- ScienceWorld

ROOM = text(r"This room is called the .+|This outside location is called the .+")
BOIL = {
    "task_name": "boil",
    "var_num": 0,
    "task_description": text("Your task is to boil water.*"),
    "observation": ROOM,
    "reward": 0,
    "score": 0,
    "deleted": False,
    "done": False,
}


def doing(*pairs: tuple[str, Any]) -> list[Request]:
    return [
        post(
            f"step {action!r}",
            "/step",
            {"id": "<id>", "action": action},
            {"observation": observation, "reward": 0, "score": 0, "done": False},
        )
        for action, observation in pairs
    ]


INFO = {
    "moves": int,
    "score": 0,
    "reward": 0,
    "look": ROOM,
    "inv": text("In your inventory, you see:.*"),
    "taskDesc": text("Task Description:\n.*"),
    "valid": lambda found: isinstance(found, list) and "look around" in found and len(found) > 100,
    "variationIdx": 0,
    "taskName": "boil",
    "simplificationStr": str,
}
FINISHED = error(r"The task with environment \d+ has finished\.")
DELETED = error(r"The task with environment \d+ has been deleted\.|The id \d+ is not valid\.")

SCIWORLD = [
    get("hello", "/", None, "This is environment ScienceWorld."),
    post("create", "/create", None, {"id": int}, id=lambda answer: answer["id"]),
    post("create with a body", "/create", {"foo": 1}, {"id": int}, other=lambda answer: answer["id"]),
    post("close the other", "/close", {"id": "<other>"}, True),
    get("detail before reset", "/detail", {"id": "<id>"}, {"deleted": False, "done": False}),
    get("observation before reset", "/observation", {"id": "<id>"}, error(".*observation.*")),
    post("step before reset", "/step", {"id": "<id>", "action": "look around"}, error(".+")),
    post("reset", "/reset", {"id": "<id>", "data_idx": 0}, BOIL),
    get("observation", "/observation", {"id": "<id>"}, ROOM),
    get("detail", "/detail", {"id": "<id>"}, BOIL),
    get(
        "action hint",
        "/action_hint",
        {"id": "<id>"},
        {"possible_actions": lambda found: "open OBJ" in found, "possible_objects": Every(str)},
    ),
    get("goals", "/goals", {"id": "<id>"}, {"goals": text("Completed keys:.*")}),
    get(
        "task",
        "/task_description",
        {"id": "<id>"},
        {"task_description": text("Your task is to boil water.*")},
    ),
    get("objects", "/object_tree", {"id": "<id>"}, {"object_tree": {"name": "universe", ...: ...}}),
    *doing(
        ("look around", ROOM),
        ("inventory", text("In your inventory, you see:.*")),
        ("task", text("Task description:\n.*")),
        ("dance", "No known action matches that input."),
        ("", "No known action matches that input."),
        ("LOOK AROUND", ROOM),
        ("open door to kitchen", "The door is now open."),
        ("go to kitchen", "You move to the kitchen."),
        ("wait1", "You decide to wait for 1 iterations."),
    ),
    post(
        "step with all there is",
        "/step_visual",
        {"id": "<id>", "action": "Thought: x\nAction: inventory</s>"},
        {
            "observation": text("In your inventory, you see:.*"),
            "reward": 0,
            "score": 0,
            "done": False,
            "info": INFO,
            "object_tree": dict,
            "inventory": text("In your inventory, you see:.*"),
            "moves": int,
        },
    ),
    post(
        "wrong focus",
        "/step",
        {"id": "<id>", "action": "focus on stove"},
        {"observation": "You focus on the stove.", "reward": -100, "score": -100, "done": True},
    ),
    post("step after done", "/step", {"id": "<id>", "action": "look around"}, FINISHED),
    get("observation after done", "/observation", {"id": "<id>"}, FINISHED),
    get("detail after done", "/detail", {"id": "<id>"}, FINISHED),
    get("goals after done", "/goals", {"id": "<id>"}, FINISHED),
    post("reset after done", "/reset", {"id": "<id>", "data_idx": 0}, BOIL),
    post(
        "reset before the first",
        "/reset",
        {"id": "<id>", "data_idx": -1},
        {
            **BOIL,
            "task_name": "identify-life-stages-2",
            "var_num": 9,
            "task_description": text("Your task is to.*"),
        },
    ),
    post(
        "reset beyond the last",
        "/reset",
        {"id": "<id>", "data_idx": 1000000},
        error(r"\w+ index out of range"),
    ),
    post("no index", "/reset", {"id": "<id>"}, complaint("missing", "body", "data_idx"), 422),
    post("step of nobody", "/step", {"id": 999, "action": "look around"}, not_valid(999)),
    post("reset of nobody", "/reset", {"id": 999, "data_idx": 0}, not_valid(999)),
    get("detail of nobody", "/detail", {"id": 999}, not_valid(999)),
    get("goals of nobody", "/goals", {"id": 999}, not_valid(999)),
    post("no action", "/step", {"id": "<id>"}, complaint("missing", "body", "action"), 422),
    post(
        "another's id field", "/step", {"env_idx": 0, "action": "x"}, complaint("missing", "body", "id"), 422
    ),
    post("close", "/close", {"id": "<id>"}, True),
    post("step after close", "/step", {"id": "<id>", "action": "look around"}, DELETED),
    post("reset after close", "/reset", {"id": "<id>", "data_idx": 0}, DELETED),
    post("close twice", "/close", {"id": "<id>"}, FAILED, 500),
    post("close nobody", "/close", {"id": 999}, FAILED, 500),
]

# ---- WebShop

GOAL = rf"Instruction:{SEP}(?P<goal>.+?)"
SEARCH_PAGE = text(rf"WebShop{SEP}{GOAL}{SEP}Search")
RESULTS = text(
    rf"{GOAL}{SEP}Back to Search{SEP}Page 1 \(Total results: \d+\){SEP}Next >"
    rf"({SEP}[A-Z0-9]{{10}}{SEP}.+?{SEP}\$[\d.,]+.*?){{1,10}}"
)
SECOND = text(rf"{GOAL}{SEP}Back to Search{SEP}Page 2 \(Total results: \d+\){SEP}< Prev{SEP}Next >.*")
NO_RESULTS = text(rf"{GOAL}{SEP}Back to Search{SEP}Page 1 \(Total results: 0\){SEP}Next >")
ITEM = text(
    rf"{GOAL}{SEP}Back to Search{SEP}< Prev{SEP}.+{SEP}Price: \$[\d.,]+.*{SEP}Rating: .+{SEP}"
    rf"Description{SEP}Features{SEP}Reviews{SEP}Buy Now"
)
SUB_PAGE = text(rf"{GOAL}{SEP}Back to Search{SEP}< Prev.*")
THANKS = text(rf"Thank you for shopping with us!{SEP}Your code:.*Purchased{SEP}asin.*")
ITEM_BUTTONS = ["back to search", "< prev", "description", "features", "reviews", "buy now"]


def shown(page: Any) -> dict[str, Any]:
    return {"state": page, "reward": 0, "done": False, "info": None}


def shop(label: str, action: str, page: Any, **keep: Any) -> Request:
    return post(label, "/step", {"env_idx": "<id>", "action": action}, shown(page), **keep)


def words(answer: Any) -> str:
    """The goal as a search: without its first words and its price limit."""
    goal = SEARCH_PAGE.fullmatch(answer[0])["goal"]  # type: ignore[index]
    return re.sub(r",? and price lower than .*", "", goal).removeprefix("Find me ")


def first_item(answer: Mapping[str, Any]) -> str:
    return re.findall(rf"{SEP}([A-Z0-9]{{10}}){SEP}", answer["state"])[0].lower()


def option(answer: Mapping[str, Any]) -> str | None:
    return next((value for value in answer["clickables"] if value not in ITEM_BUTTONS), None)


BUTTONS = "/available_actions"
ME = {"env_idx": "<id>"}
WEBSHOP = [
    get("hello", "/", None, "ok"),
    post("create", "/create", None, int, id=lambda answer: answer),
    get("list of sessions", "/list_envs", None, Every(int)),
    get("observation before reset", "/observation", ME, SEARCH_PAGE),
    post("reset", "/reset", {**ME, "session_id": 3}, [SEARCH_PAGE, None], page=lambda a: a[0], words=words),
    get("observation", "/observation", ME, Same("page")),
    get("instruction", "/instruction_text", ME, text("Instruction: .+")),
    get("buttons of the search page", BUTTONS, ME, {"has_search_bar": True, "clickables": ["search"]}),
    get("state", "/state", ME, {"url": "url", "html": "html", "instruction_text": "instruction_text"}),
    shop("free text", "hello", Same("page")),
    shop("unknown button", "click[nothing]", Same("page")),
    shop("search as a button", "click[search]", Same("page")),
    shop("empty search", "search[]", Same("page")),
    shop("capital letter", "Search[shoes]", Same("page")),
    shop("search", "search[<words>]", RESULTS, item=first_item, results=lambda answer: answer["state"]),
    get(
        "buttons of the results",
        BUTTONS,
        ME,
        {
            "has_search_bar": False,
            "clickables": lambda found: found[:2] == ["back to search", "next >"] and len(found) > 2,
        },
    ),
    shop("next page", "click[next >]", SECOND),
    shop("previous page", "click[< prev]", Same("results")),
    shop("item", "click[<item>]", ITEM, shown=lambda answer: answer["state"]),
    get(
        "buttons of the item",
        BUTTONS,
        ME,
        {"has_search_bar": False, "clickables": lambda found: found[:6] == ITEM_BUTTONS},
        option=option,
    ),
    shop("description", "click[description]", SUB_PAGE),
    get(
        "buttons of a sub page",
        BUTTONS,
        ME,
        {"has_search_bar": False, "clickables": ["back to search", "< prev"]},
    ),
    shop("back from it", "click[< prev]", Same("shown")),
    shop("features", "click[features]", SUB_PAGE),
    shop("back from features", "click[< prev]", Same("shown")),
    shop("reviews", "click[reviews]", SUB_PAGE),
    shop("back from reviews", "click[< prev]", Same("shown")),
    shop("option", "click[<option>]", Same("shown")),
    get("observation of the item", "/observation", ME, Same("shown")),
    shop("back to search", "click[back to search]", Same("page")),
    shop("search again", "search[<words>]", Same("results")),
    shop("search beside an item", "search[<words>]", Same("results")),
    shop("item again", "click[<item>]", Same("shown")),
    shop("option again", "click[<option>]", Same("shown")),
    post(
        "buy",
        "/step",
        {**ME, "action": "click[Buy Now]"},
        {"state": THANKS, "reward": lambda found: 0 <= found <= 1, "done": True, "info": None},
        thanks=lambda answer: answer["state"],
    ),
    get("observation after done", "/observation", ME, Same("thanks")),
    get("buttons after done", BUTTONS, ME, {"has_search_bar": False, "clickables": []}),
    post(
        "step after done",
        "/step",
        {**ME, "action": "click[buy now]"},
        {"state": str, "reward": float, "done": bool, "info": None},
    ),
    post("reset again", "/reset", {**ME, "session_id": 3}, [Same("page"), None]),
    post("reset to another", "/reset", {**ME, "session_id": 0}, [SEARCH_PAGE, None]),
    post("reset before the first", "/reset", {**ME, "session_id": -1}, [SEARCH_PAGE, None]),
    post("reset to null", "/reset", {**ME, "session_id": None}, [SEARCH_PAGE, None]),
    post("reset without a goal", "/reset", ME, [SEARCH_PAGE, None]),
    post("reset beyond the last", "/reset", {**ME, "session_id": 10000000}, FAILED, 500),
    post(
        "another's fields",
        "/reset",
        {"id": "<id>", "data_idx": 3},
        complaint("missing", "body", "env_idx"),
        422,
    ),
    post("step of nobody", "/step", {"env_idx": 1, "action": "search[x]"}, FAILED, 500),
    post("reset of nobody", "/reset", {"env_idx": 1, "session_id": 3}, FAILED, 500),
    get("observation of nobody", "/observation", {"env_idx": 1}, FAILED, 500),
    post("no action", "/step", ME, complaint("missing", "body", "action"), 422),
    # A bundled server closes, a public one knows no such route; both are fine. It comes last where it works.
    post("reset for the last time", "/reset", {**ME, "session_id": 3}, [Same("page"), None]),
    shop("no hit", "search[zzzzqqq]", NO_RESULTS),
    get(
        "buttons without results",
        BUTTONS,
        ME,
        {"has_search_bar": False, "clickables": ["back to search", "next >"]},
    ),
    shop("letters of others", "search[café ›]", text(rf"{GOAL}{SEP}Back to Search{SEP}Page 1 .*")),
    shop("brackets in brackets", "search[a [b] c]", text(rf"{GOAL}{SEP}Back to Search{SEP}Page 1 .*")),
    post("close", "/close", ME, {"detail": "Not Found"}, (404, 200)),
]

# ---- BabyAI

SCENE = (
    r"(In front of you in this room, you can see several objects: .*|You cannot see any objects.*)"
    r"The room has walls around you\. .*"
)
LISTED = r"\nAvailable actions: \[\"turn left\", \"turn right\".*\"check available actions\"\]"
MISSION = {
    "observation": text(rf"Your goal: [^\n]+\n{SCENE}{LISTED}"),
    "reward": 0,
    "score": 0,
    "deleted": False,
    "done": False,
}


def moving(*pairs: tuple[str, str]) -> list[Request]:
    return [
        post(
            f"step {action!r}",
            "/step",
            {"id": "<id>", "action": action},
            {"observation": text(observation), "reward": 0, "score": 0, "done": False},
        )
        for action, observation in pairs
    ]


def thing(answer: Mapping[str, Any]) -> str:
    """The first listed action that walks to what the goal names."""
    goal = re.match(r"Your goal: go to (?:the|a) (.+)", answer["observation"])[1]  # type: ignore[index]
    return re.findall(rf'"(go to {goal} \d+)"', answer["observation"])[0]


BABYAI = [
    get("hello", "/", None, "This is environment BabyAI."),
    post("create", "/create", None, {"id": int}, id=lambda answer: answer["id"]),
    get(
        "observation before reset",
        "/observation",
        {"id": "<id>"},
        {
            "observation": "Environment not initialized",
            "reward": 0,
            "score": 0,
            "done": False,
            "deleted": False,
        },
    ),
    post("step before reset", "/step", {"id": "<id>", "action": "x"}, error(".*")),
    post(
        "reset",
        "/reset",
        {"id": "<id>", "data_idx": 0},
        MISSION,
        opening=lambda answer: answer["observation"],
    ),
    post("reset again", "/reset", {"id": "<id>", "data_idx": 0}, {**MISSION, "observation": Same("opening")}),
    get("observation", "/observation", {"id": "<id>"}, {**MISSION, "observation": Same("opening")}),
    *moving(
        ("dance", rf"The action is not recognized\. Please check valid actions\.{LISTED}"),
        ("check available actions", rf"You can take the following actions: turn left, .*{LISTED}"),
        ("turn left", rf"{SCENE}{LISTED}"),
    ),
    post("reset to solve", "/reset", {"id": "<id>", "data_idx": 0}, MISSION, solve=thing),
    post(
        "solve",
        "/step",
        {"id": "<id>", "action": "<solve>"},
        {
            "observation": text(rf"{SCENE}\n The task is completed\.{LISTED}"),
            "reward": lambda found: 0 < found <= 1,
            "score": lambda found: 0 < found <= 1,
            "done": True,
        },
    ),
    post("step after done", "/step", {"id": "<id>", "action": "turn left"}, FINISHED),
    post("another seed", "/reset", {"id": "<id>", "data_idx": 40}, MISSION),
    post("another level", "/reset", {"id": "<id>", "data_idx": 11}, MISSION),
    post("reset before the first", "/reset", {"id": "<id>", "data_idx": -1}, error(".+")),
    post("no index", "/reset", {"id": "<id>"}, complaint("missing", "body", "data_idx"), 422),
    post("step of nobody", "/step", {"id": 99, "action": "x"}, not_valid(99)),
    post("close", "/close", {"id": "<id>"}, True),
    post("close twice", "/close", {"id": "<id>"}, False),
    post("step after close", "/step", {"id": "<id>", "action": "x"}, error("The id .* is not valid.")),
]

# ---- the extensions of docs/fork-protocol.md, on any server whose fields are `id` and `data_idx`


def answered(observation: Any = str) -> dict[Any, Any]:
    return {"observation": observation, "reward": lambda reward: 0 <= reward <= 1, "done": bool, ...: ...}


PROBE = {"id": "<id>", "action": "inventory"}
FORK_PROTOCOL = [
    get("about", "/about", None, {"kind": str, "extensions": Every(str), ...: ...}),
    get("it offers both", "/about", None, {"extensions": lambda e: {"fork", "replay"} <= set(e), ...: ...}),
    get(
        "split",
        "/split",
        None,
        lambda split: all(type(i) is int for ids in split.values() for i in ids),
        (200, 404),
    ),
    post("create", "/create", {}, {"id": int, ...: ...}, id=lambda answer: answer["id"]),
    post(
        "reset",
        "/reset",
        {"id": "<id>", "data_idx": 1},
        {"observation": str, ...: ...},
        opening=lambda a: a["observation"],
    ),
    post("fork", "/fork", {"id": "<id>"}, {"id": int}, copy=lambda answer: answer["id"]),
    get("the copy shows the same", "/observation", {"id": "<copy>"}, Same("opening")),
    post("step in the copy", "/step", {**PROBE, "id": "<copy>"}, answered(), seen=lambda a: a["observation"]),
    get("the original did not move", "/observation", {"id": "<id>"}, Same("opening")),
    post("the same step in it", "/step", PROBE, answered(Same("seen"))),
    post("close the copy", "/close", {"id": "<copy>"}, True),
    get("the original lives on", "/observation", {"id": "<id>"}, Same("seen")),
    post("the copy is gone", "/step", {**PROBE, "id": "<copy>"}, error(".+")),
    post("fork of nothing", "/fork", {"id": "<copy>"}, error(".+")),
    post(
        "replay without actions",
        "/replay",
        {"id": "<id>", "data_idx": 1, "actions": []},
        {"reset": {"observation": Same("opening"), ...: ...}, "steps": []},
    ),
    post(
        "replay",
        "/replay",
        {"id": "<id>", "data_idx": 1, "actions": ["inventory", "inventory"]},
        {"reset": {"observation": Same("opening"), ...: ...}, "steps": [answered(Same("seen")), answered()]},
        last=lambda answer: answer["steps"][1]["observation"],
    ),
    get("it is the session's state", "/observation", {"id": "<id>"}, Same("last")),
    post("replay in nothing", "/replay", {"id": "<copy>", "data_idx": 1, "actions": []}, error(".+")),
    post("close", "/close", {"id": "<id>"}, True),
    post("close again", "/close", {"id": "<id>"}, False),
]

REQUESTS = {
    **{"textcraft": TEXTCRAFT, "sciworld": SCIWORLD, "webshop": WEBSHOP, "babyai": BABYAI},
    "fork-protocol": FORK_PROTOCOL,
}
