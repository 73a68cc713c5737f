"""Small worlds with the shapes, statuses and error texts of AgentGym's servers. No test by itself.

Sessions of ScienceWorld and BabyAI are numbered from 0 in each new world, WebShop's never come twice, as there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

FAILED = (500, "Internal Server Error")
MISSING = (404, {"detail": "Not Found"})
numbers = itertools.count(1_000_000, 7919)  # WebShop's ids, over all worlds


@dataclass
class Played:
    """One session."""

    number: int
    index: int = -1  # of the goal; -1 before the first reset
    actions: list[str] = field(default_factory=list)
    seen: str = ""
    score: int = 0
    done: bool = False


class Worlds:
    """What ScienceWorld's and BabyAI's servers have in common."""

    id_field = "id"
    greeting = ""

    def __init__(self) -> None:
        self.open: dict[int, Played] = {}
        self.deleted: set[int] = set()
        self.created = 0

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/":
            return 200, self.greeting
        if path == "/create":
            self.open[self.created] = Played(self.created)
            self.created += 1
            return 200, {"id": self.created - 1}
        if path == "/close":
            return self.close(body["id"])
        calls: dict[str, Callable[[Played, Any], Any]] = {
            "/reset": self.reset,
            "/step": self.step,
            "/step_visual": self.step_visual,
            "/observation": self.observation,
        }
        if path not in calls:
            return MISSING
        number = body["id"]
        if number in self.deleted:
            return 200, {"error": f"The task with environment {number} has been deleted."}
        if number not in self.open:
            return 200, {"error": f"The id {number} is not valid."}
        if self.open[number].done and path != "/reset":
            return 200, {"error": f"The task with environment {number} has finished."}
        return 200, calls[path](self.open[number], body)

    def close(self, number: int) -> tuple[int, Any]:
        if self.open.pop(number, None) is None:
            return FAILED
        self.deleted.add(number)
        return 200, True

    def reset(self, played: Played, body: Any) -> Any:
        raise NotImplementedError

    def step(self, played: Played, body: Any) -> Any:
        raise NotImplementedError

    def step_visual(self, played: Played, body: Any) -> Any:
        return {"error": "no such thing"}

    def observation(self, played: Played, body: Any) -> Any:
        return played.seen


class Science(Worlds):
    """Open the door, look, take the pot, boil it: 20, 60, 100. Focusing on anything but water is a disaster."""

    greeting = "This is environment ScienceWorld."
    valid: tuple[str, ...] = (
        "boil water in metal pot",
        "close door to kitchen",
        "focus on stove",
        "focus on water",
        "look around",
    )
    valid += ("open door to kitchen", "pick up metal pot", "use thermometer on metal pot", "look at stove")

    def room(self, played: Played) -> str:
        # Temperatures differ between sessions.
        return f"This room is called the hallway. In it, you see: \n\ta thermometer ({20 + played.number} degrees)"

    def reset(self, played: Played, body: Any) -> Any:
        if body["data_idx"] >= 60:
            return {"error": "list index out of range"}
        played.index, played.actions, played.score, played.done = body["data_idx"], [], 0, False
        played.seen = self.room(played)
        task, variation = divmod(body["data_idx"], 30)
        return {
            "task_name": ("boil", "melt")[task],
            "var_num": variation,
            "task_description": "Your task is to boil water.",
            "observation": played.seen,
            "reward": 0,
            "score": 0,
            "deleted": False,
            "done": False,
        }

    def step(self, played: Played, body: Any) -> Any:
        action, before = body["action"], played.score
        played.actions.append(action)
        if action == "look around":
            played.seen = self.room(played)
        elif action == "pick up cup":
            played.seen = (
                "Ambiguous request: Please enter the number for the action you intended:\n0:\tone\n1:\tother"
            )
        elif action == "wait1":
            played.seen = "You decide to wait for 1 iterations."
        elif action not in self.valid:
            played.seen = "No known action matches that input."
        else:
            gains = {"open door to kitchen": 20, "pick up metal pot": 40, "boil water in metal pot": 40}
            played.seen = f"You {action}."
            played.score += gains.get(action, 0)
            if action == "focus on stove":
                played.score = -100
        played.done = played.score in (-100, 100)
        return {
            "observation": played.seen,
            "reward": played.score - before,
            "score": played.score,
            "done": played.done,
        }

    def step_visual(self, played: Played, body: Any) -> Any:
        answer = self.step(played, body)
        return {**answer, "info": {"valid": list(self.valid), "moves": 0}, "moves": 0, "object_tree": None}


class Baby(Worlds):
    """Three steps forward in a corridor."""

    greeting = "This is environment BabyAI."
    listed = '\nAvailable actions: ["turn left", "turn right", "move forward", "check available actions"]'

    def text(self, played: Played) -> str:
        return f"You are facing a wall {3 - played.score} steps away.{self.listed}"

    def reset(self, played: Played, body: Any) -> Any:
        played.index, played.score, played.done = body["data_idx"], 0, False
        played.seen = self.text(played)
        shown = f"Your goal: go to the red ball\n{played.seen}"
        return {"observation": shown, "reward": 0, "score": 0, "deleted": False, "done": False}

    def step(self, played: Played, body: Any) -> Any:
        if body["action"] == "move forward":
            played.score += 1
            played.seen = self.text(played)
        else:
            played.seen = f"The action is not recognized. Please check valid actions.{self.listed}"
        played.done = played.score == 3
        reward = 0.9 if played.done else 0
        return {"observation": played.seen, "reward": reward, "score": reward, "done": played.done}

    def observation(self, played: Played, body: Any) -> Any:
        shown = f"Your goal: go to the red ball\n{played.seen}"
        return {"observation": shown, "reward": 0, "score": 0, "done": False, "deleted": False}


class Shop:
    """Search, press the item, buy it. The price limit belongs to the session, as on a public server, or is fixed."""

    id_field = "env_idx"

    def __init__(self, fixed_price: int = 0) -> None:
        self.open: dict[int, Played] = {}
        self.fixed_price = fixed_price

    def act(self, path: str, body: Any) -> tuple[int, Any]:
        if path == "/":
            return 200, "ok"
        if path == "/list_envs":
            return 200, list(self.open)
        if path == "/create":
            number = next(numbers)
            self.open[number] = Played(number, 0)
            return 200, number
        if path not in ("/reset", "/step", "/observation"):
            return MISSING
        played = self.open.get(body["env_idx"])
        if played is None or (path == "/reset" and body["session_id"] > 99):
            return FAILED
        if path == "/observation":
            return 200, self.page(played)
        if path == "/reset":
            played.index, played.actions = body["session_id"], []
            return 200, [self.page(played), None]
        return 200, self.step(played, body["action"])

    def page(self, played: Played) -> str:
        limit = self.fixed_price or played.number % 97
        goal = f"Instruction: [SEP] Find me lamp {played.index}, and price lower than {limit}.00 dollars"
        if not played.actions:
            return f"WebShop [SEP] {goal} [SEP] Search"
        return f"{goal} [SEP] Back to Search [SEP] {' [SEP] '.join(played.actions)}"

    def step(self, played: Played, action: str) -> Any:
        if action == "click[buy now]":
            return {"state": "Thank you for shopping with us!", "reward": 0.75, "done": True, "info": None}
        if action.startswith(("search[", "click[b0")):
            played.actions.append(action)
        return {"state": self.page(played), "reward": 0.0, "done": False, "info": None}
