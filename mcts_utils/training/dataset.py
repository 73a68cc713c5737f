"""Records as training conversations: loss flags, mixing by eta, caps, cuts, counts. Pure: no files, no tokens.

A record row holds its turns under `messages`, or under `revise_log` as the public reference writes it; a preference row
under `prompt`, `chosen` and `rejected`. A general row holds ShareGPT's `conversations` (from/value) or `messages`
(role/content); its assistant turns are trained, unless their `loss` or `weight` says otherwise.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mcts_utils.training.row_turns import (
    ROLES,
    RowError,
    alternating,
    flagged_turns,
    general_flag,
    history_of,
    read_turn,
    signal_of,
    task_of,
    turn_list,
    with_tools,
)
from mcts_utils.types import InputError, Message, Role

T = TypeVar("T")
SHAREGPT_ROLES: dict[str, Role] = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
GENERAL = "general"
PREFERENCE = "preference"


@dataclass(frozen=True, slots=True)
class Conversation:
    """One training conversation: an optional system turn, then user and assistant alternate, an assistant turn last.

    Tool turns answer the calls of an assistant turn in place of a user turn.
    """

    kind: str  # "good", "revision", ... or GENERAL
    source: str  # "file row n", for error messages
    messages: tuple[Message, ...]
    env: str = ""  # "textcraft", ...; empty if the row names none
    task: str = ""  # the same for all rows of one task
    signal: int | None = None  # index of the revision signal's message
    history: str = "keep"  # the reasoning of earlier turns that a turn sees (reasoning.shown_history)

    @property
    def trained_turns(self) -> int:
        """Return the number of assistant turns that carry loss."""
        return sum(message.loss for message in self.messages)


@dataclass(frozen=True, slots=True)
class PreferencePair:
    """Two conversations with the same beginning; in both, the turns that the preference compares carry loss."""

    chosen: Conversation
    rejected: Conversation


def record_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """Return the conversation of a stage 2 record, with the record's loss flags (Eq. 6).

    Raises:
        RowError: if the turns do not alternate, or `loss` of an assistant message is neither true nor false.
    """
    turns = row.get("messages", row.get("revise_log"))
    if turns is None and {"chosen", "rejected"} <= set(row):
        raise RowError(source, "a preference pair, which supervised fine-tuning cannot take")
    messages = with_tools(row, flagged_turns(turns, source, "messages (or revise_log)"), source)
    kind = str(row.get("kind") or ("revision" if row.get("revise") else "good"))
    checked = alternating(messages, source)
    env, task = task_of(row, checked)
    return Conversation(
        kind, source, checked, env, task, signal_of(row, kind, checked), history_of(row, source)
    )


def preference_pair(row: Mapping[str, Any], source: str) -> PreferencePair:
    """Return the two conversations of a preference row (the ETO baseline's data).

    In the chosen conversation the flags decide which turns carry loss, so steps that the environment refused carry
    none. In the rejected one every assistant turn carries loss; its flags are false because it is not to be imitated.

    Raises:
        RowError: if it is no preference row, or one of its conversations cannot be trained.
    """
    if not {"prompt", "chosen", "rejected"} <= set(row):
        raise RowError(source, "not a preference pair: prompt, chosen and rejected are needed")
    before = with_tools(row, flagged_turns(row["prompt"], source, "prompt", strict=False), source)
    before = [replace(turn, loss=False) for turn in before]
    sides = []
    for name in ("chosen", "rejected"):
        turns = flagged_turns(row[name], source, name, strict=name == "chosen")
        if name == "rejected":
            turns = [replace(turn, loss=turn.role == "assistant") for turn in turns]
        messages = alternating([*before, *turns], f"{source} {name}")
        env, task = task_of(row, messages)
        sides.append(Conversation(PREFERENCE, source, messages, env, task, history=history_of(row, source)))
        if not sides[-1].trained_turns:
            raise RowError(source, f"no turn of {name} carries loss")
    return PreferencePair(*sides)


def general_conversation(row: Mapping[str, Any], source: str) -> Conversation:
    """Return the conversation of a ShareGPT row, with loss on every assistant turn but those with loss or weight 0.

    ShareGPT splits long chats into rows, so a row may begin with assistant turns; without a question they are left out.

    Raises:
        RowError: if the row has another form or its turns do not alternate. Callers count such rows and continue.
    """
    name, value = ("from", "value") if "conversations" in row else ("role", "content")
    turns = turn_list(row.get("conversations", row.get("messages")), source, "conversations or messages")
    messages = []
    for number, turn in enumerate(turns, start=1):
        message = read_turn(turn, name, value, SHAREGPT_ROLES, source, number)
        trained = message.role == "assistant" and general_flag(turn, source, number)
        messages.append(replace(message, loss=trained))
    if row.get("system") and messages[0].role != "system":
        if not isinstance(row["system"], str):
            raise RowError(source, "system is no text", repr(row["system"])[:100])
        messages.insert(0, Message("system", row["system"]))
    start = 1 if messages[0].role == "system" else 0
    while len(messages) > start and messages[start].role == "assistant":
        del messages[start]
    return Conversation(GENERAL, source, alternating(with_tools(row, messages, source), source))


def general_quota(records: int, eta: float) -> int:
    """Return the number of general rows that makes `records` agent rows the share `eta` in (0, 1] (Section 3.2).

    Raises:
        InputError: if eta is out of range.
    """
    if not 0 < eta <= 1:
        raise InputError(f"--eta must be over 0 and at most 1, not {eta!r}")
    return round(records * (1 - eta) / eta)


def shuffled(items: Iterable[T], seed: int) -> list[T]:
    """Return the items in an order that depends on the seed alone."""
    result = list(items)
    random.Random(seed).shuffle(result)
    return result


def cap_per_task(
    items: Sequence[T], conversation_of: Callable[[T], Conversation], most: int, seed: int
) -> list[T]:
    """Return at most `most` items of each task and kind, drawn with the seed, in their original order."""
    seen: Counter[tuple[str, str]] = Counter()
    kept = []
    for index in shuffled(range(len(items)), seed):
        conversation = conversation_of(items[index])
        key = (conversation.task, conversation.kind)
        seen[key] += 1
        if seen[key] <= most:
            kept.append(index)
    return [items[index] for index in sorted(kept)]


def cut_points(conversation: Conversation) -> Iterator[int]:
    """Yield the numbers of messages that a shortened conversation may keep, largest first, without the full length.

    A shortened conversation ends after a trained turn. If it has a revision signal, it keeps the signal and a trained
    turn after it: a signal that nothing follows would train the model to announce a revision without making one
    (Section 3.1).
    """
    messages = conversation.messages
    first = 0 if conversation.signal is None else conversation.signal + 1
    ends = [index + 1 for index, message in enumerate(messages) if message.loss and index >= first]
    return (end for end in reversed(ends) if end < len(messages))


def shortened(conversation: Conversation, end: int) -> Conversation:
    """Return the conversation with its first `end` messages only."""
    return replace(conversation, messages=conversation.messages[:end])


def count_envs(conversations: Iterable[Conversation]) -> dict[str, dict[str, int]]:
    """Return environment -> kind -> number of conversations, in alphabetical order, without general rows."""
    counts: dict[str, Counter[str]] = {}
    for conversation in conversations:
        if conversation.kind != GENERAL:
            counts.setdefault(conversation.env or "unknown", Counter())[conversation.kind] += 1
    return {env: dict(sorted(kinds.items())) for env, kinds in sorted(counts.items())}


def count_kinds(conversations: Iterable[Conversation]) -> dict[str, int]:
    """Return kind -> number of conversations, in alphabetical order."""
    return dict(sorted(Counter(conversation.kind for conversation in conversations).items()))
