"""Find the valid action that an actor meant by one that the environment does not understand. Pure; uses no model.

The rule:
1. Both texts are normalised: lower case, only letters and digits, no articles. Synonyms of a command are replaced:
   "take" is "pick up", "turn on" is "activate" (COMMANDS).
2. Only valid actions of the same command are candidates, so that opening is never closing. A text that does not begin
   with a command has none.
3. The words after the command are compared, without prepositions. Two words match if they are equal or spelled alike
   (MIN_SPELLING). All words of one text must have a match in the other: a word may be missing or additional, but it
   never replaces another. A candidate that joins two things (JOINTS) must share a word with the text for each. After
   `focus on`, which can lose the task, every word of both texts must have a match.
4. The share of common words (Dice's coefficient) must be at least MIN_SHARE; the greatest share wins. Among equal
   shares the order of the words decides. If candidates are still equal, the text is too vague and none is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache

MIN_SHARE = 0.5  # of common words, in [0, 1]
MIN_SPELLING = 0.8  # difflib's ratio of two words' letters, from which they match
IGNORED = frozenset(
    "a an the some my your this that to in into on onto of from with at inside for through using and".split()
)
PLAIN = (
    "activate, deactivate, open, close, connect, disconnect, dunk, eat, flush, mix, move, pour, read, use, wait, "
    "wait1, inventory, task, focus on, go to, look around, look at, look in, pick up, put down"
).split(", ")
# An actor's words -> the simulator's command; the longest entry that begins a text counts.
COMMANDS = {
    **{name: name for name in PLAIN},
    **dict.fromkeys(("turn on", "switch on"), "activate"),
    **dict.fromkeys(("turn off", "switch off"), "deactivate"),
    **dict.fromkeys(("take", "grab", "get", "pick", "pickup"), "pick up"),
    **dict.fromkeys(("put", "place", "insert"), "move"),
    **dict.fromkeys(("go", "goto", "go into", "walk to", "move to", "enter"), "go to"),
    **dict.fromkeys(("examine", "inspect"), "look at"),
    **dict.fromkeys(("look inside", "look into"), "look in"),
    **{"drop": "put down", "focus": "focus on", "check inventory": "inventory", "stir": "mix"},
}
EXACT = ("focus on",)  # commands for which every word must have a match
# Commands that join two things, and the word between them in the simulator's list.
JOINTS = {"connect": "to", "move": "to", "use": "on", "pour": "into", "dunk": "into"}


def nearest(action: str, valid: Sequence[str]) -> str | None:
    """Return the valid action that `action` means, or None. The order of `valid` does not matter."""
    command, words = parts(action)
    if not command:
        return None
    best, found = (0.0, 0.0), set[str]()
    for candidate in valid:
        its_command, its_words = parts(candidate)
        if its_command != command or not (share := common(words, its_words)):
            continue
        if share < MIN_SHARE or (command in EXACT and share < 1) or not names_both(words, candidate, command):
            continue
        rank = (share, in_order(words, its_words))
        if rank > best:
            best, found = rank, {candidate}
        elif rank == best:
            found.add(candidate)
    return found.pop() if len(found) == 1 else None


def parts(action: str) -> tuple[str, list[str]]:
    """Return the simulator's command and the content words after it; ("", []) if the text begins with no command."""
    words = re.findall(r"[a-z0-9]+", action.lower().replace("'s", ""))
    for length in (2, 1):
        command = COMMANDS.get(" ".join(words[:length]))
        if command and length <= len(words):
            return command, content_words(" ".join(words[length:]))
    return "", []


def content_words(text: str) -> list[str]:
    """Return the words of a text without articles and prepositions (IGNORED)."""
    return [word for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in IGNORED]


def names_both(words: Sequence[str], candidate: str, command: str) -> bool:
    """Return True unless one of the two things that the valid action joins has no match among `words`."""
    things = candidate.rsplit(f" {JOINTS.get(command, '')} ", 1) if command in JOINTS else []
    return all(any(same(word, one) for one in content_words(thing) for word in words) for thing in things)


def common(words: Sequence[str], others: Sequence[str]) -> float:
    """Return Dice's coefficient of two texts' words, in [0, 1]; 0 unless one text has all the words of the other."""
    if not words or not others:
        return float(words == others)
    if len(words) > 3 * len(others) or len(others) > 3 * len(words):
        return 0.0  # less than MIN_SHARE
    left = list(others)
    for word in words:
        match = next((other for other in left if same(word, other)), None)
        if match is not None:
            left.remove(match)
    shared = len(others) - len(left)
    return 2 * shared / (len(words) + len(others)) if shared == min(len(words), len(others)) else 0.0


def in_order(words: Sequence[str], others: Sequence[str]) -> float:
    """Return how similar the order of the words is, in [0, 1]."""
    return SequenceMatcher(None, words, others, autojunk=False).ratio()


@lru_cache(maxsize=1 << 16)  # a list of 3,000 valid actions has some 100 words
def same(word: str, other: str) -> bool:
    """Return True for equal words and for words spelled alike; numbers must be equal."""
    if word == other:
        return True
    if word.isdigit() or other.isdigit() or abs(len(word) - len(other)) > 3:
        return False
    return SequenceMatcher(None, word, other, autojunk=False).ratio() >= MIN_SPELLING
