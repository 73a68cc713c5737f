"""Answers to WebShop conversations by plan, with slips: what a scripted chat endpoint says.

Of the conversation it reads the text alone: the instruction and the pages. It knows the bundled catalogue by heart, so
it tells which product meets an instruction; with noise it searches vaguely, takes a wrong product, forgets options or
takes wrong ones. It also answers the judge's question (the opening, a log, one current action and its observation).
"""

from __future__ import annotations

import random
import re

from mcts_utils.servers.transcript import CURRENT, LOGGED, Turn, turns
from mcts_utils.servers.webshop import planner
from mcts_utils.servers.webshop.models import Goal
from mcts_utils.servers.webshop.page_state import Situation, situation

INSTRUCTION = re.compile(r"Instruction: \[SEP\] (.*?) \[SEP\] ")
OPENING = re.compile(r"^WebShop \[SEP\] Instruction: .*$", re.MULTILINE)


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """The reply to a conversation; with probability `noise` a slip, or a wrong verdict to the judge's question."""
    asked = next((m["content"] for m in messages if m["role"] == "user" and OPENING.search(m["content"])), "")
    opening = OPENING.search(asked)
    if opening is None:
        return "Thought: I do not see an instruction.\nAction: search[help]"
    current = CURRENT.search(asked)
    if current:
        before = LOGGED.findall(asked.split("\n\nLog:\n", 1)[-1])
        return _verdict(opening[0], before, (current[1], current[2]), rng, noise)
    now = situation(opening[0], turns(messages), planner.options_by_title())
    goal = planner.known(INSTRUCTION.findall(opening[0] + " [SEP] ")[0])
    if goal is None:
        return _stranger(now, opening[0])
    if rng.random() < noise and (slips := planner.slips(now, goal)):
        return f"Thought: I will try this now.\nAction: {rng.choice(slips)}"
    reason, action = planner.move(now, goal)
    return f"Thought: {reason}\nAction: {action}"


def _verdict(opening: str, before: list[Turn], current: Turn, rng: random.Random, noise: float) -> str:
    """Bad if the plan got longer, refused or the purchase pays less than 1; good if it got shorter; else uncertain."""
    goal = planner.known(INSTRUCTION.findall(opening + " [SEP] ")[0])
    old = situation(opening, before, planner.options_by_title())
    new = situation(opening, [*before, current], planner.options_by_title())
    label, reason = ("Uncertain", "I do not know this shop.") if goal is None else _judged(old, new, goal)
    if rng.random() < noise:
        label = rng.choice(["Good", "Bad", "Uncertain"])
    return f"{reason}\nJudgment: {label}"


def _judged(old: Situation, new: Situation, goal: Goal) -> tuple[str, str]:
    """The verdict on one action and its reason."""
    ahead, behind = planner.left(old, goal), planner.left(new, goal)
    wanted = dict(goal.options)
    if new.seen.kind == "done" and old.seen.kind != "done":
        if new.seen.score == 1:
            return "Good", "This buys what was asked for."
        return "Bad", "This buys something that is not what was asked for."
    if new == old:
        return "Bad", "The shop did not react to this."
    if any(
        wanted.get(name, value) != value
        for name, value in new.chosen.items()
        if old.chosen.get(name) != value
    ):
        return "Bad", "This is not the option that was asked for."
    if behind < ahead:
        return "Good", "This brings the purchase nearer."
    if behind > ahead and new.seen.kind != "sub":
        return "Bad", "After this the way is longer."
    return "Uncertain", "This changes nothing that matters."


def _stranger(now: Situation, opening: str) -> str:
    """An instruction of another catalogue: search its words, take the first product, and what options it names."""
    instruction = planner.CLAUSE.sub("", INSTRUCTION.findall(opening + " [SEP] ")[0])
    if now.seen.kind == "results" and now.seen.asins:
        action = f"click[{now.seen.asins[0].lower()}]"
    elif now.seen.kind == "item":
        action = "click[buy now]"
    elif now.seen.kind in ("sub", "results"):
        action = "click[back to search]"
    else:
        action = f"search[{instruction.removeprefix('Find me ')}]"
    return f"Thought: I do not know this shop.\nAction: {action}"
