"""Which valid action an actor meant by one that the environment does not understand. Pure; asks nobody.

The rule:
1. Both texts are made plain: lower case, letters and digits alone, no articles. Other words for the same command are
   replaced: "take" is "pick up", "turn on" is "activate" (COMMANDS).
2. Only valid actions of the same command count: opening is never closing. A text that begins with no command means
   none.
3. The words behind the command are compared, prepositions left out. Two are the same if they are equal or spelled
   alike (ALIKE). All words of one text must be found in the other, so a word may be missing or too much, but never
   stand for another; of two things that are joined, neither may be missing (JOINTS). `focus on` can lose the task:
   there every word of the text and of the valid action must be found.
4. The share of common words (Dice's coefficient) must be at least ENOUGH; the greatest wins. Among equals the order of
   the words decides. If that does not either, the text is too vague and means none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

ENOUGH = 0.5
ALIKE = 0.8  # difflib's ratio of two words' letters
IGNORED = frozenset(
    "a an the some my your this that to in into on onto of from with at inside for through using and".split()
)
PLAIN = (
    *(
        "activate",
        "deactivate",
        "open",
        "close",
        "connect",
        "disconnect",
        "dunk",
        "eat",
        "flush",
        "mix",
        "move",
        "pour",
    ),
    *(
        "read",
        "use",
        "wait",
        "wait1",
        "inventory",
        "task",
        "focus on",
        "go to",
        "look around",
        "look at",
        "look in",
    ),
    *("pick up", "put down"),
)
# What an actor says -> the simulator's command; the longest that begins a text counts.
COMMANDS = {
    **{name: name for name in PLAIN},
    **dict.fromkeys(("turn on", "switch on"), "activate"),
    **dict.fromkeys(("turn off", "switch off"), "deactivate"),
    **dict.fromkeys(("take", "grab", "get", "pick", "pickup"), "pick up"),
    **dict.fromkeys(("drop",), "put down"),
    **dict.fromkeys(("put", "place", "insert"), "move"),
    **dict.fromkeys(("go", "goto", "go into", "walk to", "move to", "enter"), "go to"),
    **dict.fromkeys(("focus",), "focus on"),
    **dict.fromkeys(("examine", "inspect"), "look at"),
    **dict.fromkeys(("look inside", "look into"), "look in"),
    **dict.fromkeys(("check inventory",), "inventory"),
    **dict.fromkeys(("stir",), "mix"),
}
EXACT = ("focus on",)
# Commands with two things, and the word between them in the simulator's list.
JOINTS = {"connect": "to", "move": "to", "use": "on", "pour": "into", "dunk": "into"}


def nearest(action: str, valid: Sequence[str]) -> str | None:
    """The valid action that `action` means, or None. The same for every order of `valid`."""
    command, words = parts(action)
    if not command:
        return None
    best, found = (0.0, 0.0), set[str]()
    for candidate in valid:
        its_command, its_words = parts(candidate)
        if its_command != command or not (share := common(words, its_words)):
            continue
        if share < ENOUGH or (command in EXACT and share < 1) or not names_both(words, candidate, command):
            continue
        rank = (share, in_order(words, its_words))
        if rank > best:
            best, found = rank, {candidate}
        elif rank == best:
            found.add(candidate)
    return found.pop() if len(found) == 1 else None


def parts(action: str) -> tuple[str, list[str]]:
    """The simulator's command and the words behind it that carry meaning; ("", []) where no command begins the text."""
    words = re.findall(r"[a-z0-9]+", action.lower().replace("'s", ""))
    for length in (2, 1):
        command = COMMANDS.get(" ".join(words[:length]))
        if command and length <= len(words):
            return command, meant(" ".join(words[length:]))
    return "", []


def meant(text: str) -> list[str]:
    """The words of a text that carry meaning."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in IGNORED]


def names_both(words: Sequence[str], candidate: str, command: str) -> bool:
    """True unless one of the two things that the valid action joins has no word among `words`."""
    things = candidate.rsplit(f" {JOINTS.get(command, '')} ", 1) if command in JOINTS else []
    return all(any(same(word, one) for one in meant(thing) for word in words) for thing in things)


def common(words: Sequence[str], others: Sequence[str]) -> float:
    """Twice the common words over all words, in [0, 1]; 0 unless one text has all the words of the other."""
    if not words or not others:
        return float(words == others)
    if len(words) > 3 * len(others) or len(others) > 3 * len(words):
        return 0.0  # fewer than ENOUGH
    left = list(others)
    for word in words:
        match = next((other for other in left if same(word, other)), None)
        if match is not None:
            left.remove(match)
    shared = len(others) - len(left)
    return 2 * shared / (len(words) + len(others)) if shared == min(len(words), len(others)) else 0.0


def in_order(words: Sequence[str], others: Sequence[str]) -> float:
    """How far the words come in the same order, in [0, 1]."""
    return SequenceMatcher(None, words, others, autojunk=False).ratio()


@lru_cache(maxsize=1 << 16)  # a list of 3,000 valid actions has some 100 words
def same(word: str, other: str) -> bool:
    """True for equal words and for those spelled alike; numbers have to be equal."""
    if word == other:
        return True
    if word.isdigit() or other.isdigit() or abs(len(word) - len(other)) > 3:
        return False
    return SequenceMatcher(None, word, other, autojunk=False).ratio() >= ALIKE
