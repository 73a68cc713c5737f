"""Tell a turn's reasoning (`<think>...</think>`) from the rest: split it off, put it before, show it or not. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from mcts_utils.types import Message

TAG = r"(?:(?:seed:)?think|thinking|thought|reasoning|reflection|scratchpad)\s*>"
REASONING = re.compile(  # what opens (a), and what closes (b), a model's reasoning
    rf"(?P<a><{TAG}|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>|<\|begin_of_thought\|>|<\|START_THINKING\|>)"
    rf"|(?P<b></{TAG}|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>|<\|END_THINKING\|>)",
    re.IGNORECASE,
)


def with_reasoning(reasoning: str, text: str) -> str:
    """Return a turn with the reasoning before it that its server gave apart, as most models write both."""
    if not reasoning.strip():
        return text
    # A mark inside would end the reasoning too early.
    inner = REASONING.sub(lambda mark: mark.group()[0] + " " + mark.group()[1:], reasoning.strip())
    return f"<think>\n{inner}\n</think>\n\n{text}".rstrip()


def split_reasoning(text: str) -> tuple[str, str]:
    """Return the reasoning at the beginning of a turn, without its marks, and the rest; ("", text) without any."""
    begin, end = next(iter(_spans(text)), (0, 0))
    if not end or text[:begin].strip():
        return "", text
    inner = text[begin:end]
    for mark in list(REASONING.finditer(inner))[::-1]:
        if mark.start() == 0 or mark.end() == len(inner):
            inner = inner[: mark.start()] + inner[mark.end() :]
    return inner.strip(), text[end:].lstrip()


def without_reasoning(text: str) -> str:
    """Return a turn without its reasoning; a turn without any as it is."""
    spans = _spans(text)
    for begin, end in reversed(spans):
        text = text[:begin] + text[end:]
    return text.strip() if spans else text


def shown_history(messages: Sequence[Message], shown: str) -> list[Message]:
    """Return a conversation as its next turn sees it.

    Args:
        shown: HISTORY_REASONING: `keep`, `drop` (no turn has its reasoning) or `last` (only the last turn has it).
    """
    found = list(messages)
    turns = [index for index, message in enumerate(found) if message.role == "assistant"]
    for index in {"keep": [], "last": turns[:-1]}.get(shown, turns):
        if (text := without_reasoning(found[index].content)) != found[index].content:
            found[index] = replace(found[index], content=text)
    return found


@lru_cache(maxsize=1024)  # each turn of a conversation is asked about again in every later turn
def _spans(text: str) -> list[tuple[int, int]]:
    """Return where the reasoning in a text begins and ends, its marks included; nobody changes the list."""
    spans: list[tuple[int, int]] = []
    begin, last = None, len(text.rstrip())
    for mark in REASONING.finditer(text):
        if mark["a"] is not None:
            begin = mark.start() if begin is None else begin
        elif begin is None and mark.end() < last:  # the chat template opened it
            spans = [(0, mark.end())]
        else:
            spans.append((mark.start() if begin is None else begin, mark.end()))
            begin = None
    return spans + ([] if begin is None else [(begin, len(text))])


def spoken(text: str) -> str:
    """Return the text with its reasoning as blanks."""
    spans = _spans(text)
    ends = [0, *(end for _, end in spans)]
    starts = [*(start for start, _ in spans), len(text)]
    pieces = [text[end:start] for end, start in zip(ends, starts, strict=True)]
    blanks = [re.sub(r"[^\n]", " ", text[start:end]) for start, end in spans] + [""]
    return "".join(piece + blank for piece, blank in zip(pieces, blanks, strict=True))
