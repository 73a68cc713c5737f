"""Read the turns of a training row: roles, loss flags, tool calls, and what the row says of its task. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcts_utils.tool_calls import as_call
from mcts_utils.types import InputError, Message, Role, ToolCall

ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
SIGNALLED = ("revision", "direct")  # kinds that hold a revision signal


class RowError(InputError):
    """A row that cannot be trained. `reason` is the same text for all rows with the same fault, the key of counts."""

    def __init__(self, source: str, reason: str, detail: str = "") -> None:
        super().__init__(f"{source}: {reason}{': ' + detail if detail else ''}")
        self.reason = reason


def flagged_turns(turns: Any, source: str, key: str, strict: bool = True) -> list[Message]:
    """Return the messages with their loss flags; if `strict`, every assistant turn must have one."""
    messages = []
    for number, turn in enumerate(turn_list(turns, source, key), start=1):
        message = read_turn(turn, "role", "content", ROLES, source, number)
        flag = turn.get("loss")
        if strict and message.role == "assistant" and not isinstance(flag, bool):
            detail = f"message {number} has {flag!r}"
            raise RowError(source, "loss must be true or false on every assistant message", detail)
        messages.append(replace(message, loss=message.role == "assistant" and flag is True))
    return messages


def with_tools(row: Mapping[str, Any], messages: list[Message], source: str) -> list[Message]:
    """Return the turns with the tools of the row, which the first one holds."""
    tools = row.get("tools") or []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise RowError(source, "tools is no list of objects", repr(tools)[:60])
    return [replace(messages[0], tools=json.dumps(tools)), *messages[1:]] if tools else messages


def task_of(row: Mapping[str, Any], messages: Sequence[Message]) -> tuple[str, str]:
    """Return (environment, task). Rows of the reference name neither: their first user turn, the goal, is the task."""
    lineage = row.get("lineage")
    named = lineage.get("task") if isinstance(lineage, Mapping) else None
    if isinstance(named, Mapping) and named.get("id"):
        return str(named.get("env") or ""), str(named["id"])
    return "", next(message.content for message in messages if message.role == "user")


def history_of(row: Mapping[str, Any], source: str) -> str:
    """Return the reasoning of earlier turns that a turn sees; older rows, which do not say it, show all of it."""
    found = row.get("history_reasoning", "keep")
    if found not in ("drop", "keep", "last"):
        raise RowError(source, "history_reasoning must be drop, keep or last", repr(found)[:60])
    return str(found)


def signal_of(row: Mapping[str, Any], kind: str, messages: Sequence[Message]) -> int | None:
    """Return the index of the revision signal, or None: the turn that the row names, else the first trained one.

    Rows of the reference do not name the turn.
    """
    if kind not in SIGNALLED:
        return None
    trained = [index for index, message in enumerate(messages) if message.loss]
    named = (index for index in trained if messages[index].content == row.get("revise"))
    return next(named, trained[0] if trained else None)


def turn_list(turns: Any, source: str, key: str) -> list[Mapping[str, Any]]:
    if not isinstance(turns, list) or not turns or not all(isinstance(turn, Mapping) for turn in turns):
        raise RowError(source, f"no list of turns under {key}")
    return turns


def read_turn(
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


def alternating(messages: list[Message], source: str) -> tuple[Message, ...]:
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


def general_flag(turn: Mapping[str, Any], source: str, number: int) -> bool:
    """Return whether an assistant turn of a general row is trained: unless its `loss` or its `weight` is 0 or false."""
    for name in ("loss", "weight"):
        flag = turn.get(name)
        if flag is not None and flag not in (0, 1):
            raise RowError(source, f"{name} must be 0, 1, true or false", f"message {number} has {flag!r}")
        if flag is not None and not flag:
            return False
    return True
