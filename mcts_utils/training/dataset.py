"""Records as training conversations: loss flags, mixing by eta, caps, cuts, counts. Pure: no files, no tokens.

A record row holds its turns under `messages`, or under `revise_log` as the public reference writes it; a preference row
under `prompt`, `chosen` and `rejected`. A general row holds ShareGPT's `conversations` (from/value) or `messages`
(role/content); its assistant turns are trained, unless their `loss` or `weight` says otherwise.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mcts_utils.tool_calls import as_call
from mcts_utils.types import InputError, Message, Role, ToolCall

T = TypeVar("T")
ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
SHAREGPT_ROLES: dict[str, Role] = ROLES | {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}
GENERAL = "general"
PREFERENCE = "preference"
SIGNALLED = ("revision", "direct")  # kinds that hold a revision signal


class RowError(InputError):
    """A row that cannot be trained. `reason` is the same text for all rows with the same fault, the key of counts."""

    def __init__(self, source: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{source}: {reason}{': ' + detail if detail else ''}")
        self.reason = reason


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
    messages = _offered(row, _flagged(turns, source, "messages (or revise_log)"), source)
    kind = str(row.get("kind") or ("revision" if row.get("revise") else "good"))
    checked = _checked(messages, source)
    env, task = _task_of(row, checked)
    return Conversation(
        kind, source, checked, env, task, _signal_of(row, kind, checked), _history_of(row, source)
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
    before = _offered(row, _flagged(row["prompt"], source, "prompt", strict=False), source)
    before = [replace(turn, loss=False) for turn in before]
    sides = []
    for name in ("chosen", "rejected"):
        turns = _flagged(row[name], source, name, strict=name == "chosen")
        if name == "rejected":
            turns = [replace(turn, loss=turn.role == "assistant") for turn in turns]
        messages = _checked([*before, *turns], f"{source} {name}")
        env, task = _task_of(row, messages)
        sides.append(Conversation(PREFERENCE, source, messages, env, task, history=_history_of(row, source)))
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
    turns = _turn_list(row.get("conversations", row.get("messages")), source, "conversations or messages")
    messages = []
    for number, turn in enumerate(turns, start=1):
        message = _message(turn, name, value, SHAREGPT_ROLES, source, number)
        trained = message.role == "assistant" and _general_flag(turn, source, number)
        messages.append(replace(message, loss=trained))
    if row.get("system") and messages[0].role != "system":
        if not isinstance(row["system"], str):
            raise RowError(source, "system is no text", repr(row["system"])[:100])
        messages.insert(0, Message("system", row["system"]))
    start = 1 if messages[0].role == "system" else 0
    while len(messages) > start and messages[start].role == "assistant":
        del messages[start]
    return Conversation(GENERAL, source, _checked(_offered(row, messages, source), source))


def _general_flag(turn: Mapping[str, Any], source: str, number: int) -> bool:
    """Return whether an assistant turn of a general row is trained: unless its `loss` or its `weight` is 0 or false."""
    for name in ("loss", "weight"):
        flag = turn.get(name)
        if flag is not None and flag not in (0, 1):
            raise RowError(source, f"{name} must be 0, 1, true or false", f"message {number} has {flag!r}")
        if flag is not None and not flag:
            return False
    return True


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


def _flagged(turns: Any, source: str, key: str, strict: bool = True) -> list[Message]:
    """Return the messages with their loss flags; if `strict`, every assistant turn must have one."""
    messages = []
    for number, turn in enumerate(_turn_list(turns, source, key), start=1):
        message = _message(turn, "role", "content", ROLES, source, number)
        flag = turn.get("loss")
        if strict and message.role == "assistant" and not isinstance(flag, bool):
            detail = f"message {number} has {flag!r}"
            raise RowError(source, "loss must be true or false on every assistant message", detail)
        messages.append(replace(message, loss=message.role == "assistant" and flag is True))
    return messages


def _offered(row: Mapping[str, Any], messages: list[Message], source: str) -> list[Message]:
    """Return the turns with the tools of the row, which the first one holds."""
    tools = row.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError(source, "tools is no list of objects", repr(tools)[:60])
    return [replace(messages[0], tools=json.dumps(tools)), *messages[1:]] if tools else messages


def _task_of(row: Mapping[str, Any], messages: Sequence[Message]) -> tuple[str, str]:
    """Return (environment, task). Rows of the reference name neither: their first user turn, the goal, is the task."""
    lineage = row.get("lineage")
    named = lineage.get("task") if isinstance(lineage, Mapping) else None
    if isinstance(named, Mapping) and named.get("id"):
        return str(named.get("env") or ""), str(named["id"])
    return "", next(message.content for message in messages if message.role == "user")


def _history_of(row: Mapping[str, Any], source: str) -> str:
    """Return the reasoning of earlier turns that a turn sees; older rows, which do not say it, show all of it."""
    found = row.get("history_reasoning", "keep")
    if found not in ("drop", "keep", "last"):
        raise RowError(source, "history_reasoning must be drop, keep or last", repr(found)[:60])
    return str(found)


def _signal_of(row: Mapping[str, Any], kind: str, messages: Sequence[Message]) -> int | None:
    """Return the index of the revision signal, or None: the turn that the row names, else the first trained one.

    Rows of the reference do not name the turn.
    """
    if kind not in SIGNALLED:
        return None
    trained = [index for index, message in enumerate(messages) if message.loss]
    named = (index for index in trained if messages[index].content == row.get("revise"))
    return next(named, trained[0] if trained else None)


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
    listed = turn.get("tool_calls") or []
    if not isinstance(listed, list):
        raise RowError(source, "tool_calls is no list", f"message {number} has {str(listed)[:60]}")
    calls = tuple(_call(call, source, number) for call in listed)
    content = "" if content is None and calls else content
    if not isinstance(content, str):
        raise RowError(source, "a message has no text", f"message {number} has {content!r}")
    if calls and roles[role] != "assistant":
        raise RowError(source, "only an assistant turn calls tools", f"message {number} is {role}")
    answered = str(turn.get("tool_call_id") or "") if role == "tool" else ""
    return Message(roles[role], content, tool_calls=calls, tool_call_id=answered)


def _call(call: Any, source: str, number: int) -> ToolCall:
    """Return a tool call of a row, in the form of a chat request."""
    found = as_call(call)
    if not found.name and not (isinstance(call, Mapping) and call.get("fault")):
        raise RowError(source, "a tool call has no name", f"message {number} has {str(call)[:60]}")
    return found


def _checked(messages: list[Message], source: str) -> tuple[Message, ...]:
    """Return the turns if they alternate, as chat templates require, without a last user turn; else raise RowError."""
    begin = 1 if messages and messages[0].role == "system" else 0
    if begin and not messages[0].content:
        raise RowError(source, "the system message is empty")
    expected, open_calls = "user", 0
    for number, message in enumerate(messages[begin:], start=begin + 1):
        if message.role != expected:
            where = f"message {number} is {message.role}, not {expected}"
            raise RowError(source, "user and assistant must alternate after the system turn", where)
        open_calls = len(message.tool_calls) if message.role == "assistant" else max(0, open_calls - 1)
        answer = "tool" if open_calls else "user"
        expected = answer if message.role == "assistant" or open_calls else "assistant"
    if len(messages) < begin + 2:
        raise RowError(source, "no assistant turn")
    last = max(index for index, message in enumerate(messages) if message.role == "assistant")
    return tuple(messages[: last + 1])  # no trained turn follows the last observation
