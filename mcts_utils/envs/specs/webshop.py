"""WebShop: find a product in a shop by its description, choose its options, buy it. Pure."""

from __future__ import annotations

import re

from mcts_utils.envs.specs.base import ListedSpec

INSTRUCTION = re.compile(r"Instruction:\s*(?:\[SEP\]\s*)?(.+?)\s*(?:\[SEP\]|$)", re.DOTALL)
PRICE = re.compile(r",? and price lower than [\d.,]+ dollars")
OPTION = re.compile(r"(?:\bwith|, and) [^:,]{1,40}: ")  # as a synthetic instruction lists options


class WebShop(ListedSpec):
    """The reward comes with `buy now`; a refused action shows the same page again.

    A public server draws the price limit of every goal anew with each /create, so that a task belongs to one session;
    its id leaves the limit out. The ids of sessions are random numbers. There is no /close.
    """

    name, title = "webshop", "WebShop"
    full_prompt = (
        "You are shopping on a web site. The instruction says which product to buy, and often which options and at "
        "what price at most.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what to do next and why\n"
        "Action: one command\n"
        "The commands are:\n"
        "search[words] - only on the page that has Search: look for products\n"
        "click[value] - press something that the page shows between [SEP] marks: a product code such as b09abc1234, an "
        "option such as blue or x-large, description, features, next >, < prev, back to search, buy now\n"
        "Search first, open the product that fits best, click every option that the instruction asks for, check the "
        "price, then click[buy now]: it ends the task, so do it once and last. Clicking an option leaves the page's "
        "text as it is; going back to the search clears the options. A page that stays the same after any other "
        "command means that the command was wrong."
    )
    brief_prompt = "Buy what is asked for."
    # Both a refused action and a clicked option show the same page again, so no observation counts as a refusal.
    action_form = re.compile(r"(?:search|click)\[.+\]", re.DOTALL)
    tools = {"search": "search[{words}]", "click": "click[{value}]"}  # noqa: RUF012
    goal_form, goal_sign = INSTRUCTION, "'Instruction: [SEP] <goal> [SEP]'"
    index_field, text_field = "session_id", "state"
    by_index = False
    session_bound_tasks = True
    listing = "/list_envs"

    def goal(self, opening: str) -> str:
        """Return the instruction without its price limit."""
        return PRICE.sub("", super().goal(opening)).strip()

    def comparable(self, observation: str) -> str:
        return PRICE.sub("", observation)  # every page repeats the instruction

    def breakdown_keys(self, opening: str, index: int) -> dict[str, str]:
        """Return the number of `name: value` options in the instruction; one that a person wrote has none."""
        goal = INSTRUCTION.search(opening)
        return {"options": str(len(OPTION.findall(goal.group(1))))} if goal else {}


SPEC = WebShop()
