"""Wordle (LMRL-Gym): guess a word of five letters in six tries. `ENV_SERVER_BASE` ends with /wordle. Pure."""

from __future__ import annotations

import re
from typing import Any

from mcts_utils.envs.specs.base import EnvSpec


class Wordle(EnvSpec):
    """Reward 1 for the word. An index seeds the choice of the word; the opening is the same for all of them."""

    name, title = "wordle", "Wordle"
    full_prompt = (
        "You guess a secret word of five letters and have six tries. The answer has a letter for each of yours: b is "
        "not in the word, y is in the word at another place, g is right. A word that the game does not know is called "
        "invalid and costs a try.\n"
        "In every turn reply with exactly two lines:\n"
        "Thought: one short sentence on what is known and which word fits\n"
        "Action: the five letters of the word with blanks between them, for example: c r a n e"
    )
    brief_prompt = "Guess the word."
    score = "success_rate"
    refusal = re.compile(r"invalid word")
    index_field = "seed"
    hello = "/filtered_vocab?id=-1"  # no GET of Wordle's needs no session; the error tells that it is there
    by_index = True

    def greets(self, answer: Any) -> bool:
        """Return True for the error of an unknown session."""
        return "is not valid" in str(answer)


SPEC = Wordle()
