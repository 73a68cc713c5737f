"""The scripted WebShop expert: answers conversations by plan, with slips, for the mock LLM.

It reads the conversation's text only: the instruction and the pages. It knows the bundled catalogue, so it knows which
product meets an instruction; with noise it searches vaguely, takes a wrong product, forgets options or takes wrong
ones. It also answers the judge's question (the opening, a log, one current action and its observation).
"""

from __future__ import annotations

import random
import re

from mcts_utils.servers.transcript import CURRENT, LOGGED, Turn, turns, verdict
from mcts_utils.servers.webshop import planner
from mcts_utils.servers.webshop.models import Goal
from mcts_utils.servers.webshop.page_state import PageState, final_state

INSTRUCTION = re.compile(r"Instruction: \[SEP\] (.*?) \[SEP\] ")
OPENING = re.compile(r"^WebShop \[SEP\] Instruction: .*$", re.MULTILINE)


def answer(messages: list[dict], rng: random.Random, noise: float) -> str:
    """Return the reply to a conversation.

    With probability `noise` it is a slip; a verdict on the judge's question is then a random one.
    """
    asked = next((m["content"] for m in messages if m["role"] == "user" and OPENING.search(m["content"])), "")
    opening = OPENING.search(asked)
    if opening is None:
        return "Thought: I do not see an instruction.\nAction: search[help]"
    current = CURRENT.search(asked)
    if current:
        before = LOGGED.findall(asked.split("\n\nLog:\n", 1)[-1])
        return _verdict(opening[0], before, (current[1], current[2]), rng, noise)
    state = final_state(opening[0], turns(messages), planner.options_by_title())
    goal = planner.known_goal(INSTRUCTION.findall(opening[0] + " [SEP] ")[0])
    if goal is None:
        return _unknown_instruction(state, opening[0])
    if rng.random() < noise and (slips := planner.slips(state, goal)):
        return f"Thought: I will try this now.\nAction: {rng.choice(slips)}"
    reason, action = planner.next_action(state, goal)
    return f"Thought: {reason}\nAction: {action}"


def _verdict(opening: str, before: list[Turn], current: Turn, rng: random.Random, noise: float) -> str:
    """Return the reply to the judge's question: the verdict on the current action, or with noise a random one."""
    goal = planner.known_goal(INSTRUCTION.findall(opening + " [SEP] ")[0])
    old = final_state(opening, before, planner.options_by_title())
    new = final_state(opening, [*before, current], planner.options_by_title())
    label, reason = ("Uncertain", "I do not know this shop.") if goal is None else _judged(old, new, goal)
    return verdict(label, reason, rng, noise)


def _judged(old: PageState, new: PageState, goal: Goal) -> tuple[str, str]:
    """Return the verdict on an action and its reason.

    Good: the plan got shorter or the purchase pays 1. Bad: the plan got longer, the shop did not react, an option is
    wrong or the purchase pays less than 1. Else Uncertain.
    """
    left_before, left_after = planner.actions_left(old, goal), planner.actions_left(new, goal)
    wanted = dict(goal.options)
    if new.page.kind == "done" and old.page.kind != "done":
        if new.page.score == 1:
            return "Good", "This buys what was asked for."
        return "Bad", "This buys something that is not what was asked for."
    if new == old:
        return "Bad", "The shop did not react to this."
    chosen = {name: value for name, value in new.chosen.items() if old.chosen.get(name) != value}
    if any(wanted.get(name, value) != value for name, value in chosen.items()):
        return "Bad", "This is not the option that was asked for."
    if left_after < left_before:
        return "Good", "This brings the purchase nearer."
    if left_after > left_before and new.page.kind != "sub":
        return "Bad", "After this the way is longer."
    return "Uncertain", "This changes nothing that matters."


def _unknown_instruction(state: PageState, opening: str) -> str:
    """Return the reply to an instruction of another catalogue: search its words and buy the first result."""
    instruction = planner.CLAUSE.sub("", INSTRUCTION.findall(opening + " [SEP] ")[0])
    if state.page.kind == "results" and state.page.asins:
        action = f"click[{state.page.asins[0].lower()}]"
    elif state.page.kind == "item":
        action = "click[buy now]"
    elif state.page.kind in ("sub", "results"):
        action = "click[back to search]"
    else:
        action = f"search[{instruction.removeprefix('Find me ')}]"
    return f"Thought: I do not know this shop.\nAction: {action}"
