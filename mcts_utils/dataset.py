"""Records -> training conversations: loss flags, mixing by eta, shuffling, counts. Pure: no files, no tokens.

A record row holds its turns under `messages`, or under `revise_log` as the public reference writes it. A general row is
ShareGPT's `conversations` (from/value) or `messages` (role/content); every assistant turn of it is trained.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mcts_utils.types import InputError, Message, Role

ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
SHAREGPT_ROLES: dict[str, Role] = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
GENERAL = "general"


class RowError(InputError):
    """A row that cannot be trained. `reason` is the same words for every row of its sort, to be counted by."""

    def __init__(self, source: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{source}: {reason}{': ' + detail if detail else ''}")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training conversation: an optional system turn, then user and assistant in turn, an assistant turn last."""

    kind: str  # "good", "revision", ... or GENERAL
    source: str  # "file row n", for messages to people
    messages: tuple[Message, ...]

    @property
    def trained_turns(self) -> int:
        """How many assistant turns carry loss."""
        return sum(message.loss for message in self.messages)


def record_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """The conversation of a stage 2 record. Its loss flags are taken as they stand (Eq. 6).

    Raises:
        RowError: if the turns do not alternate, or an assistant message does not say true or false under `loss`:
            XTuner reads a missing flag as false, in silence.
    """
    turns = row.get("messages", row.get("revise_log"))
    if turns is None and {"chosen", "rejected"} <= set(row):
        raise RowError(source, "a preference pair, which supervised fine-tuning cannot take")
    messages = []
    for number, turn in enumerate(_turn_list(turns, source, "messages (or revise_log)"), start=1):
        message = _message(turn, "role", "content", ROLES, source, number)
        flag = turn.get("loss")
        if message.role == "assistant" and not isinstance(flag, bool):
            detail = f"message {number} has {flag!r}"
            raise RowError(source, "loss must be true or false on every assistant message", detail)
        messages.append(Message(message.role, message.content, message.role == "assistant" and bool(flag)))
    kind = str(row.get("kind") or ("revision" if row.get("revise") else "good"))
    return Conversation(kind, source, _checked(messages, source))


def general_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """The conversation of a ShareGPT row; every assistant turn is trained.

    ShareGPT cuts long chats into rows, so a row may begin with an assistant turn: it answers nothing and is left out.

    Raises:
        RowError: if the row has another form or its turns do not alternate. Callers count these and go on.
    """
    name, value = ("from", "value") if "conversations" in row else ("role", "content")
    turns = _turn_list(row.get("conversations", row.get("messages")), source, "conversations or messages")
    found = [
        _message(turn, name, value, SHAREGPT_ROLES, source, number)
        for number, turn in enumerate(turns, start=1)
    ]
    messages = [Message(message.role, message.content, message.role == "assistant") for message in found]
    start = 1 if messages[0].role == "system" else 0
    while len(messages) > start and messages[start].role == "assistant":
        del messages[start]
    return Conversation(GENERAL, source, _checked(messages, source))


def general_quota(records: int, eta: float) -> int:
    """How many general rows go with `records` agent rows, so that these are the share `eta` in (0, 1] (Section 3.2)."""
    if not 0 < eta <= 1:
        raise InputError(f"--eta must be over 0 and at most 1, not {eta!r}")
    return round(records * (1 - eta) / eta)


def shuffled(conversations: Iterable[Conversation], seed: int) -> list[Conversation]:
    """The same conversations in an order that depends on the seed alone."""
    result = list(conversations)
    random.Random(seed).shuffle(result)
    return result


def count_kinds(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Conversations by kind, in alphabetical order."""
    return dict(sorted(Counter(conversation.kind for conversation in conversations).items()))


def training_row(messages: Sequence[Message]) -> dict[str, Any]:
    """The row XTuner's openai_map_fn takes: role, content and an explicit loss on every message."""
    return {"messages": [{"role": m.role, "content": m.content, "loss": m.loss} for m in messages]}


def _turn_list(turns: Any, source: str, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowError(source, f"no list of turns under {key}")
    return turns


def _message(
    turn: Mapping[str, Any], name: str, value: str, roles: Mapping[str, Role], source: str, number: int
) -> Message:
    role, content = turn.get(name), turn.get(value)
    if not isinstance(role, str) or role not in roles:
        raise RowError(source, "a role is unknown", f"message {number} has {role!r}")
    if not isinstance(content, str):
        raise RowError(source, "a message has no text", f"message {number} has {content!r}")
    return Message(roles[role], content)


def _checked(messages: list[Message], source: str) -> tuple[Message, ...]:
    """The turns as XTuner will take them. It would join, invent and drop turns to make others fit: refused here."""
    begin = 1 if messages and messages[0].role == "system" else 0
    if begin and not messages[0].content:
        raise RowError(source, "the system message is empty")  # XTuner drops it, the chat template does not
    for number, message in enumerate(messages[begin:]):
        expected = "assistant" if number % 2 else "user"
        if message.role != expected:
            where = f"message {begin + number + 1} is {message.role}, not {expected}"
            raise RowError(source, "user and assistant must alternate after the system turn", where)
    if len(messages) < begin + 2:
        raise RowError(source, "no assistant turn")
    # A last observation answers nothing that is trained.
    return tuple(messages[:-1] if messages[-1].role == "user" else messages)
